#include "orchestrator/scheduling/cluster_monitor.h"

#include <utility>

#include "absl/strings/str_cat.h"

namespace gpipe::orchestrator {

ClusterMonitor::ClusterMonitor(EventLoop* loop, Cluster* cluster, JobBook* book, ClusterFeed* feed)
    : loop_(loop), cluster_(cluster), book_(book), feed_(feed) {
  cluster_->registry().set_listener(this);
  book_->set_listener(this);
}

ClusterMonitor::~ClusterMonitor() {
  cluster_->registry().set_listener(nullptr);
  book_->set_listener(nullptr);
}

void ClusterMonitor::Refresh() {
  for (const std::string& name : std::exchange(workers_, {})) PublishWorker(name);
  for (const std::string& id : std::exchange(jobs_, {})) {
    if (const LiveJob* job = book_->Find(id); job != nullptr) PublishJob(*job);
  }
}

void ClusterMonitor::OnWorkerChanged(const std::string& name) {
  workers_.insert(name);
  // What else belongs to the change, its attempt say, is known when the batch is stored.
  loop_->AfterCommit([this, name](const absl::Status& stored) {
    if (stored.ok() && workers_.erase(name) > 0) PublishWorker(name);
  });
}

void ClusterMonitor::OnWorkerAlive(const std::string& name) {
  workers_.insert(name);
  RefreshSoon();
}

void ClusterMonitor::OnJobChanged(const LiveJob& job) {
  jobs_.erase(job.id());
  PublishJob(job);
}

void ClusterMonitor::OnJobProgress(const LiveJob& job) {
  jobs_.insert(job.id());
  RefreshSoon();
}

void ClusterMonitor::OnJobDeleted(const std::string& id) {
  v1::WatchClusterResponse gone;
  gone.set_job_gone(id);
  Publish(absl::StrCat("job ", id), std::move(gone), /*over=*/true);
}

void ClusterMonitor::RefreshSoon() {
  if (refresh_scheduled_ || !feed_->watched()) return;
  refresh_scheduled_ = true;
  loop_->PostAfter(kInterval, [this] {
    refresh_scheduled_ = false;
    Refresh();
  });
}

void ClusterMonitor::PublishWorker(const std::string& name) {
  v1::WatchClusterResponse update;
  const WorkerEntry* worker = cluster_->registry().Find(name);
  const bool gone = worker == nullptr || (worker->left() && !worker->drained);
  if (gone) {
    update.set_worker_gone(name);
  } else {
    *update.mutable_worker() = DescribeWorker(*worker, loop_->Now());
  }
  feed_->Publish(absl::StrCat("worker ", name), std::move(update), gone);
}

void ClusterMonitor::PublishJob(const LiveJob& job) {
  v1::WatchClusterResponse update;
  *update.mutable_job() = Summary(job);
  Publish(absl::StrCat("job ", job.id()), std::move(update), IsTerminal(job.job().state()));
}

void ClusterMonitor::Publish(const std::string& key, v1::WatchClusterResponse update, bool over) {
  loop_->AfterCommit([this, key, update = std::move(update), over](const absl::Status& stored) {
    if (stored.ok()) feed_->Publish(key, update, over);
  });
}

}  // namespace gpipe::orchestrator
