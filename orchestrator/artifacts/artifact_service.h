#ifndef GPIPE_ORCHESTRATOR_ARTIFACTS_ARTIFACT_SERVICE_H_
#define GPIPE_ORCHESTRATOR_ARTIFACTS_ARTIFACT_SERVICE_H_

#include <functional>
#include <utility>

#include "gpipe/v1/pipeline_service.grpc.pb.h"
#include "orchestrator/artifacts/artifact_store.h"
#include "orchestrator/artifacts/file_threads.h"
#include "orchestrator/artifacts/open_calls.h"

namespace gpipe::orchestrator {

// Uploads and downloads, for clients and workers. Each call holds two pieces (1 MiB downloading, one message of at most
// the server's receive limit uploading) in memory. The bytes of files pass by as they are (common/artifacts/
// piece_message.h), without a message class in between.
//
// gRPC's callback threads are few (half the cores, at least two) and carry the workers' heartbeats too: they touch no
// file. The service has threads for pieces, and one that syncs whole files.
//
// The store must outlive the service, and the service the server's Shutdown, which ends all calls.
class ArtifactService final
    : public v1::ArtifactService::WithCallbackMethod_FindMissingArtifacts<
          v1::ArtifactService::WithRawCallbackMethod_UploadArtifact<
              v1::ArtifactService::WithRawCallbackMethod_DownloadArtifact<v1::ArtifactService::Service>>> {
 public:
  // What one caller may read and write; null: everything.
  struct Access {
    std::function<absl::Status(const v1::ArtifactRef& file)> may_read;
    std::function<absl::Status(const v1::UploadArtifactRequest& first)> may_write;
  };
  using AccessOf = std::function<Access(const grpc::CallbackServerContext& context)>;

  struct Limits {
    OpenCalls::Limits uploads = {.most = 1024, .patience = absl::Minutes(5)};
    OpenCalls::Limits downloads = {.most = 4096, .patience = absl::InfiniteDuration()};
  };

  // Refs in one FindMissingArtifacts.
  static constexpr int kMaxRefs = 10000;

  static Access Everything(const grpc::CallbackServerContext&) { return {}; }
  explicit ArtifactService(ArtifactStore* store, AccessOf access_of = Everything)
      : ArtifactService(store, std::move(access_of), Limits()) {}
  ArtifactService(ArtifactStore* store, AccessOf access_of, const Limits& limits)
      : store_(store),
        access_of_(std::move(access_of)),
        uploads_("an upload", limits.uploads),
        downloads_("a download", limits.downloads) {}

  grpc::ServerUnaryReactor* FindMissingArtifacts(grpc::CallbackServerContext* context,
                                                 const v1::FindMissingArtifactsRequest* request,
                                                 v1::FindMissingArtifactsResponse* response) override;
  grpc::ServerReadReactor<grpc::ByteBuffer>* UploadArtifact(grpc::CallbackServerContext* context,
                                                            grpc::ByteBuffer* response) override;
  grpc::ServerWriteReactor<grpc::ByteBuffer>* DownloadArtifact(grpc::CallbackServerContext* context,
                                                               const grpc::ByteBuffer* request) override;

 private:
  static constexpr int kPieceThreads = 4;
  // Calls that wait for a thread, with one piece each; more at once are refused.
  static constexpr size_t kMaxWaiting = 4096;
  static constexpr size_t kMaxWaitingCommits = 1024;

  ArtifactStore* const store_;
  const AccessOf access_of_;
  OpenCalls uploads_, downloads_;
  FileThreads pieces_{"artifact-files", kPieceThreads, kMaxWaiting};
  FileThreads commits_{"artifact-commit", 1, kMaxWaitingCommits};
};

}  // namespace gpipe::orchestrator

#endif  // GPIPE_ORCHESTRATOR_ARTIFACTS_ARTIFACT_SERVICE_H_
