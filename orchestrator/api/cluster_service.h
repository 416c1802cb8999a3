#ifndef GPIPE_ORCHESTRATOR_API_CLUSTER_SERVICE_H_
#define GPIPE_ORCHESTRATOR_API_CLUSTER_SERVICE_H_

#include "gpipe/v1/pipeline_service.grpc.pb.h"
#include "orchestrator/cluster/cluster.h"
#include "orchestrator/cluster/event_loop.h"
#include "orchestrator/jobs/disk_guard.h"
#include "orchestrator/jobs/store.h"

namespace gpipe::orchestrator {

// The workers and the orchestrator itself, for clients. All parts must outlive the server.
class ClusterService final : public v1::ClusterService::CallbackService {
 public:
  ClusterService(EventLoop* loop, Cluster* cluster, Store* store, const DiskGuard* disk)
      : loop_(loop), cluster_(cluster), store_(store), disk_(disk) {}

  grpc::ServerUnaryReactor* ListWorkers(grpc::CallbackServerContext* context, const v1::ListWorkersRequest* request,
                                        v1::ListWorkersResponse* response) override;
  grpc::ServerUnaryReactor* GetVersion(grpc::CallbackServerContext* context, const v1::GetVersionRequest* request,
                                       v1::GetVersionResponse* response) override;
  grpc::ServerUnaryReactor* DrainWorker(grpc::CallbackServerContext* context, const v1::DrainWorkerRequest* request,
                                        v1::Worker* response) override;
  grpc::ServerUnaryReactor* UndrainWorker(grpc::CallbackServerContext* context, const v1::UndrainWorkerRequest* request,
                                          v1::Worker* response) override;

 private:
  EventLoop* const loop_;
  Cluster* const cluster_;
  Store* const store_;
  const DiskGuard* const disk_;
};

}  // namespace gpipe::orchestrator

#endif  // GPIPE_ORCHESTRATOR_API_CLUSTER_SERVICE_H_
