#ifndef GPIPE_ORCHESTRATOR_ARTIFACTS_DOWNLOAD_CALL_H_
#define GPIPE_ORCHESTRATOR_ARTIFACTS_DOWNLOAD_CALL_H_

#include <cstdint>
#include <filesystem>
#include <functional>
#include <memory>
#include <optional>

#include "absl/base/thread_annotations.h"
#include "absl/status/status.h"
#include "absl/synchronization/mutex.h"
#include "gpipe/v1/pipeline_service.pb.h"
#include "grpcpp/support/byte_buffer.h"
#include "grpcpp/support/server_callback.h"
#include "orchestrator/artifacts/artifact_store.h"
#include "orchestrator/artifacts/file_threads.h"
#include "orchestrator/artifacts/open_calls.h"

namespace gpipe::orchestrator {

// One download. The next piece is read by a file thread while the last one is on its way, so that at most two are in
// memory. Made by ArtifactService; deletes itself when gRPC and the file threads are done with it.
class DownloadCall final : public grpc::ServerWriteReactor<grpc::ByteBuffer> {
 public:
  // `store` and `threads` must outlive the call. The request is checked and the file opened by a file thread, too.
  // `may_read` null: everything may be read. Without a place the call is refused.
  using MayRead = std::function<absl::Status(const v1::ArtifactRef& file)>;
  DownloadCall(const ArtifactStore& store, FileThreads& threads, std::unique_ptr<OpenCalls::Place> place,
               MayRead may_read, const grpc::ByteBuffer& request);
  ~DownloadCall() override;

  void OnWriteDone(bool ok) override;
  void OnDone() override { delete this; }

 private:
  // On a file thread.
  void ReadNext();
  absl::Status Open();
  absl::StatusOr<grpc::ByteBuffer> Read();
  // A buffer without a message: that was all.
  void EndRead(absl::StatusOr<grpc::ByteBuffer> piece);

  // What can be started; chosen under the lock under which what had ended was noted. If another thread could come in
  // between, the call might end there, and this one find the object gone.
  struct Next {
    bool write = false;
    bool read = false;
    std::optional<absl::Status> end;
  };
  Next Choose() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  void Start(const Next& next);

  const ArtifactStore& store_;
  FileThreads& threads_;
  const std::unique_ptr<OpenCalls::Place> place_;
  const MayRead may_read_;
  const grpc::ByteBuffer request_;
  // The file thread's, of which there is one at a time.
  std::filesystem::path path_;
  int fd_ = -1;
  int64_t offset_ = 0;
  int64_t end_ = 0;

  grpc::ByteBuffer sending_;  // gRPC's while a write is under way.
  absl::Mutex mutex_;
  bool reading_ ABSL_GUARDED_BY(mutex_) = false;
  bool writing_ ABSL_GUARDED_BY(mutex_) = false;
  bool finished_ ABSL_GUARDED_BY(mutex_) = false;
  std::optional<grpc::ByteBuffer> ready_ ABSL_GUARDED_BY(mutex_);
  // Nothing more is to be read: all is, or something failed.
  std::optional<absl::Status> end_status_ ABSL_GUARDED_BY(mutex_);
};

}  // namespace gpipe::orchestrator

#endif  // GPIPE_ORCHESTRATOR_ARTIFACTS_DOWNLOAD_CALL_H_
