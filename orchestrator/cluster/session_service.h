#ifndef GPIPE_ORCHESTRATOR_CLUSTER_SESSION_SERVICE_H_
#define GPIPE_ORCHESTRATOR_CLUSTER_SESSION_SERVICE_H_

#include <atomic>

#include "gpipe/v1/worker_session.grpc.pb.h"
#include "orchestrator/access/gatekeeper.h"
#include "orchestrator/access/worker_files.h"
#include "orchestrator/cluster/cluster.h"
#include "orchestrator/cluster/event_loop.h"

namespace gpipe::orchestrator {

// The workers' streams: brings each message to the loop, one at a time per worker, and the cluster's messages out.
// A worker must go by a name of its certificate, and what it is told of files is noted. All must outlive the server.
class SessionService final : public v1::WorkerSessionService::CallbackService {
 public:
  struct Parts {
    EventLoop* loop;
    Cluster* cluster;
    const Gatekeeper* gatekeeper;
    WorkerFiles* files;
  };
  explicit SessionService(const Parts& parts) : parts_(parts) {}

  grpc::ServerBidiReactor<v1::WorkerMessage, v1::OrchestratorMessage>* Session(
      grpc::CallbackServerContext* context) override;

 private:
  const Parts parts_;
  std::atomic<Cluster::SessionId> next_id_ = 1;
};

}  // namespace gpipe::orchestrator

#endif  // GPIPE_ORCHESTRATOR_CLUSTER_SESSION_SERVICE_H_
