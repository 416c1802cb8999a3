#ifndef GPIPE_ORCHESTRATOR_API_ADMIN_SERVICE_H_
#define GPIPE_ORCHESTRATOR_API_ADMIN_SERVICE_H_

#include <filesystem>
#include <utility>

#include "gpipe/v1/pipeline_service.grpc.pb.h"
#include "orchestrator/artifacts/artifact_store.h"
#include "orchestrator/cluster/background.h"

namespace gpipe::orchestrator {

// For those who run the cluster. `artifacts` and `backups`, the thread that takes them one after the other, must
// outlive the server.
class AdminService final : public v1::AdminService::CallbackService {
 public:
  AdminService(std::filesystem::path state_dir, ArtifactStore* artifacts, Background* backups)
      : state_dir_(std::move(state_dir)), artifacts_(artifacts), backups_(backups) {}

  grpc::ServerWriteReactor<v1::BackUpResponse>* BackUp(grpc::CallbackServerContext* context,
                                                       const v1::BackUpRequest* request) override;

 private:
  const std::filesystem::path state_dir_;
  ArtifactStore* const artifacts_;
  Background* const backups_;
};

}  // namespace gpipe::orchestrator

#endif  // GPIPE_ORCHESTRATOR_API_ADMIN_SERVICE_H_
