#ifndef GPIPE_ORCHESTRATOR_API_BACK_UP_CALL_H_
#define GPIPE_ORCHESTRATOR_API_BACK_UP_CALL_H_

#include <filesystem>
#include <string>
#include <string_view>

#include "absl/base/thread_annotations.h"
#include "absl/status/status.h"
#include "absl/synchronization/mutex.h"
#include "gpipe/v1/pipeline_service.pb.h"
#include "grpcpp/support/server_callback.h"
#include "orchestrator/artifacts/artifact_store.h"

namespace gpipe::orchestrator {

// One backup: a snapshot of the database, then the files of its jobs, piece by piece. While it lasts no file is removed
// from the artifacts. Made by AdminService; deletes itself when gRPC is done with it.
class BackUpCall final : public grpc::ServerWriteReactor<v1::BackUpResponse> {
 public:
  // A client that takes no piece for so long has gone, or keeps files from being removed for nothing.
  static constexpr absl::Duration kPatience = absl::Seconds(60);
  static constexpr size_t kPieceBytes = 1 << 20;

  // `artifacts`, below `state_dir`, must outlive the call, and `context` is gRPC's.
  BackUpCall(std::filesystem::path state_dir, ArtifactStore* artifacts, bool with_files,
             grpc::CallbackServerContext* context);

  // Does it all, on the calling thread, which is to be one for backups alone. The object may be gone afterwards.
  void Run();
  // Instead of Run.
  void Refuse(const absl::Status& why);

  void OnWriteDone(bool ok) override;
  void OnCancel() override;
  void OnDone() override { delete this; }

 private:
  absl::Status BackUp();
  absl::Status SendFiles(const std::filesystem::path& snapshot);
  // `name` is what it is called in the backup.
  absl::Status SendFile(const std::filesystem::path& path, const std::string& name, int64_t size);
  // Returns when it is written.
  absl::Status Send(const v1::BackUpResponse& part);
  // False: that would take longer.
  bool AwaitWritten(absl::Duration patience);
  bool IsIdle() const ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_) { return !writing_; }

  const std::filesystem::path state_dir_;
  ArtifactStore* const artifacts_;
  const bool with_files_;
  grpc::CallbackServerContext* const context_;
  absl::Mutex mutex_;
  bool writing_ ABSL_GUARDED_BY(mutex_) = false;
  bool gone_ ABSL_GUARDED_BY(mutex_) = false;  // The client.
};

}  // namespace gpipe::orchestrator

#endif  // GPIPE_ORCHESTRATOR_API_BACK_UP_CALL_H_
