#ifndef GPIPE_ORCHESTRATOR_API_MONITORING_SERVICE_H_
#define GPIPE_ORCHESTRATOR_API_MONITORING_SERVICE_H_

#include "gpipe/v1/monitoring.grpc.pb.h"
#include "orchestrator/cluster/event_loop.h"
#include "orchestrator/scheduling/cluster_feed.h"
#include "orchestrator/scheduling/cluster_monitor.h"
#include "orchestrator/scheduling/job_book.h"

namespace gpipe::orchestrator {

// What the cluster and its jobs are doing, for clients. All parts must outlive the server.
class MonitoringService final : public v1::MonitoringService::CallbackService {
 public:
  struct Parts {
    EventLoop* loop;
    JobBook* book;
    ClusterFeed* feed;
    ClusterMonitor* monitor;
  };
  explicit MonitoringService(const Parts& parts) : parts_(parts) {}

  grpc::ServerWriteReactor<v1::WatchClusterResponse>* WatchCluster(grpc::CallbackServerContext* context,
                                                                   const v1::WatchClusterRequest* request) override;
  grpc::ServerUnaryReactor* GetTimeline(grpc::CallbackServerContext* context, const v1::GetTimelineRequest* request,
                                        v1::StepTimeline* response) override;

 private:
  const Parts parts_;
};

}  // namespace gpipe::orchestrator

#endif  // GPIPE_ORCHESTRATOR_API_MONITORING_SERVICE_H_
