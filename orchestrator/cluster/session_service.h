#ifndef GPIPE_ORCHESTRATOR_CLUSTER_SESSION_SERVICE_H_
#define GPIPE_ORCHESTRATOR_CLUSTER_SESSION_SERVICE_H_

#include <atomic>

#include "gpipe/v1/worker_session.grpc.pb.h"
#include "orchestrator/cluster/cluster.h"
#include "orchestrator/cluster/event_loop.h"

namespace gpipe::orchestrator {

// The workers' streams: brings each message to the loop, one at a time per worker, and the cluster's messages out.
// `loop` and `cluster` must outlive the server.
class SessionService final : public v1::WorkerSessionService::CallbackService {
 public:
  SessionService(EventLoop* loop, Cluster* cluster) : loop_(loop), cluster_(cluster) {}

  grpc::ServerBidiReactor<v1::WorkerMessage, v1::OrchestratorMessage>* Session(
      grpc::CallbackServerContext* context) override;

 private:
  EventLoop* const loop_;
  Cluster* const cluster_;
  std::atomic<Cluster::SessionId> next_id_ = 1;
};

}  // namespace gpipe::orchestrator

#endif  // GPIPE_ORCHESTRATOR_CLUSTER_SESSION_SERVICE_H_
