#ifndef GPIPE_ORCHESTRATOR_SCHEDULING_CLUSTER_MONITOR_H_
#define GPIPE_ORCHESTRATOR_SCHEDULING_CLUSTER_MONITOR_H_

#include <set>
#include <string>

#include "orchestrator/cluster/cluster.h"
#include "orchestrator/cluster/event_loop.h"
#include "orchestrator/scheduling/cluster_feed.h"
#include "orchestrator/scheduling/job_book.h"

namespace gpipe::orchestrator {

// Tells the feed what becomes of workers and jobs: changes of state as soon as they are stored, what changes all the
// time (a job's progress, what a worker does and uses) every kInterval, and only while somebody watches. For the loop's
// thread.
class ClusterMonitor final : public WorkerListener, public JobListener {
 public:
  static constexpr absl::Duration kInterval = absl::Milliseconds(500);

  // All must outlive the monitor, which makes itself the listener of both, before there are workers and jobs.
  ClusterMonitor(EventLoop* loop, Cluster* cluster, JobBook* book, ClusterFeed* feed);
  ~ClusterMonitor() override;
  ClusterMonitor(const ClusterMonitor&) = delete;
  ClusterMonitor& operator=(const ClusterMonitor&) = delete;

  // The feed has everything as it is now: before somebody begins to watch.
  void Refresh();

  // WorkerListener
  void OnWorkerChanged(const std::string& name) override;
  void OnWorkerAlive(const std::string& name) override;
  // JobListener
  void OnJobChanged(const LiveJob& job) override;
  void OnJobProgress(const LiveJob& job) override;
  void OnJobDeleted(const std::string& id) override;

 private:
  void Publish(const std::string& key, v1::WatchClusterResponse update, bool over);
  void PublishWorker(const std::string& name);
  void PublishJob(const LiveJob& job);
  void RefreshSoon();

  EventLoop* const loop_;
  Cluster* const cluster_;
  JobBook* const book_;
  ClusterFeed* const feed_;
  std::set<std::string, std::less<>> workers_, jobs_;  // Those that have changed since they were published.
  bool refresh_scheduled_ = false;
};

}  // namespace gpipe::orchestrator

#endif  // GPIPE_ORCHESTRATOR_SCHEDULING_CLUSTER_MONITOR_H_
