#ifndef GPIPE_ORCHESTRATOR_API_CLUSTER_SERVICE_H_
#define GPIPE_ORCHESTRATOR_API_CLUSTER_SERVICE_H_

#include "gpipe/v1/pipeline_service.grpc.pb.h"
#include "orchestrator/cluster/cluster.h"
#include "orchestrator/cluster/event_loop.h"

namespace gpipe::orchestrator {

// The workers, for clients. Both parts must outlive the server.
class ClusterService final : public v1::ClusterService::CallbackService {
 public:
  ClusterService(EventLoop* loop, Cluster* cluster) : loop_(loop), cluster_(cluster) {}

  grpc::ServerUnaryReactor* ListWorkers(grpc::CallbackServerContext* context, const v1::ListWorkersRequest* request,
                                        v1::ListWorkersResponse* response) override;
  grpc::ServerUnaryReactor* GetVersion(grpc::CallbackServerContext* context, const v1::GetVersionRequest* request,
                                       v1::GetVersionResponse* response) override;

 private:
  EventLoop* const loop_;
  Cluster* const cluster_;
};

}  // namespace gpipe::orchestrator

#endif  // GPIPE_ORCHESTRATOR_API_CLUSTER_SERVICE_H_
