#ifndef GPIPE_ORCHESTRATOR_ARTIFACTS_UPLOAD_CALL_H_
#define GPIPE_ORCHESTRATOR_ARTIFACTS_UPLOAD_CALL_H_

#include <functional>
#include <memory>
#include <optional>
#include <vector>

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

// One upload. A message is hashed and written by a file thread while the next one arrives, so that at most two are in
// memory. A call that is cancelled reads as one that ends too early, and leaves nothing. Made by ArtifactService;
// deletes itself when gRPC and the file threads are done with it.
class UploadCall final : public grpc::ServerReadReactor<grpc::ByteBuffer> {
 public:
  // All outlive the call. `commits` is where the whole file is synced, which may take as long as the disk needs.
  struct Parts {
    ArtifactStore& store;
    FileThreads& pieces;
    FileThreads& commits;
  };
  // `may_write` is asked about the first message; null: everything may be written. Without a place the call is refused.
  using MayWrite = std::function<absl::Status(const v1::UploadArtifactRequest& first)>;
  UploadCall(const Parts& parts, std::unique_ptr<OpenCalls::Place> place, MayWrite may_write,
             grpc::ByteBuffer* response);

  void OnReadDone(bool ok) override;
  void OnDone() override { delete this; }

 private:
  // On a file thread, one at a time.
  absl::Status Accept(const grpc::ByteBuffer& message);
  absl::Status AcceptData(const std::vector<grpc::Slice>& data);
  absl::Status AcceptFirst(const v1::UploadArtifactRequest& first);
  absl::Status Commit();

  // What can be started; chosen under the lock under which what had ended was noted. If another thread could come in
  // between, the call might end there, and this one find the object gone.
  struct Next {
    bool read = false;
    std::optional<grpc::ByteBuffer> message;  // To be accepted.
    bool commit = false;
    std::optional<absl::Status> end;
  };
  Next Choose() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  void Start(Next next);
  void Work(FileThreads& threads, std::function<void()> work);
  // `last`: nothing is to follow.
  void EndWork(const absl::Status& status, bool last);

  const Parts parts_;
  std::unique_ptr<OpenCalls::Place> place_;  // Until all has come.
  const MayWrite may_write_;
  grpc::ByteBuffer* const response_;
  std::optional<ArtifactStore::Writer> writer_;  // The file thread's.

  grpc::ByteBuffer arriving_;  // gRPC's while a read is under way.
  absl::Mutex mutex_;
  bool reading_ ABSL_GUARDED_BY(mutex_) = false;
  bool working_ ABSL_GUARDED_BY(mutex_) = false;
  bool all_read_ ABSL_GUARDED_BY(mutex_) = false;
  bool finished_ ABSL_GUARDED_BY(mutex_) = false;
  std::optional<grpc::ByteBuffer> ready_ ABSL_GUARDED_BY(mutex_);
  std::optional<absl::Status> end_status_ ABSL_GUARDED_BY(mutex_);
};

}  // namespace gpipe::orchestrator

#endif  // GPIPE_ORCHESTRATOR_ARTIFACTS_UPLOAD_CALL_H_
