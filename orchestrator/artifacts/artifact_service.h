#ifndef GPIPE_ORCHESTRATOR_ARTIFACTS_ARTIFACT_SERVICE_H_
#define GPIPE_ORCHESTRATOR_ARTIFACTS_ARTIFACT_SERVICE_H_

#include <thread>

#include "common/bounded_queue.h"
#include "gpipe/v1/pipeline_service.grpc.pb.h"
#include "orchestrator/artifacts/artifact_store.h"

namespace gpipe::orchestrator {

// Uploads and downloads, for clients and workers. Each call holds one piece (1 MiB downloading, one message of at most
// the server's receive limit uploading) in memory: the next is read only when the last is on its way.
//
// Pieces are read and written in gRPC's callback threads, which are few (half the cores, at least two) and carry the
// workers' heartbeats too. What may take seconds, syncing a whole uploaded file, is done by a thread of the service.
//
// The store must outlive the service, and the service the server's Shutdown, which ends all calls.
class ArtifactService final : public v1::ArtifactService::CallbackService {
 public:
  // Refs in one FindMissingArtifacts.
  static constexpr int kMaxRefs = 10000;
  static constexpr int64_t kPieceBytes = 1 << 20;

  explicit ArtifactService(ArtifactStore* store);
  ~ArtifactService() override;

  grpc::ServerUnaryReactor* FindMissingArtifacts(grpc::CallbackServerContext* context,
                                                 const v1::FindMissingArtifactsRequest* request,
                                                 v1::FindMissingArtifactsResponse* response) override;
  grpc::ServerReadReactor<v1::UploadArtifactRequest>* UploadArtifact(grpc::CallbackServerContext* context,
                                                                     v1::UploadArtifactResponse* response) override;
  grpc::ServerWriteReactor<v1::DownloadArtifactResponse>* DownloadArtifact(
      grpc::CallbackServerContext* context, const v1::DownloadArtifactRequest* request) override;

 private:
  class UploadReactor;

  // Uploads that have all their bytes and wait to be committed; more at once are refused.
  static constexpr size_t kMaxWaitingCommits = 1024;

  void CommitUploads();

  ArtifactStore* const store_;
  BoundedQueue<UploadReactor*> complete_uploads_{kMaxWaitingCommits};
  std::thread commit_thread_;  // Ends when complete_uploads_ is closed.
};

}  // namespace gpipe::orchestrator

#endif  // GPIPE_ORCHESTRATOR_ARTIFACTS_ARTIFACT_SERVICE_H_
