#ifndef GPIPE_ORCHESTRATOR_SCHEDULING_CLUSTER_FEED_H_
#define GPIPE_ORCHESTRATOR_SCHEDULING_CLUSTER_FEED_H_

#include <cstddef>
#include <cstdint>
#include <map>
#include <memory>
#include <set>
#include <string>
#include <string_view>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/status/status.h"
#include "absl/synchronization/mutex.h"
#include "gpipe/v1/monitoring.pb.h"
#include "orchestrator/scheduling/delivery.h"

namespace gpipe::orchestrator {

// One update of the cluster, the same object for all who watch it.
using ClusterUpdate = std::shared_ptr<const v1::WatchClusterResponse>;

// The last update of every worker and every job, in the order in which they came. A watcher is no more than a place in
// this list, so that it costs the same however slow it is: an update that a later one of the same worker or job
// replaces leaves the list, and whoever had not come to it is told how many such there were. Of those that are over,
// the last kMaxOver are in the list; who was away for longer gets everything again. Any thread may call any method.
class ClusterFeed {
 public:
  static constexpr size_t kMaxOver = 256;
  static constexpr size_t kMaxWatchers = 1000;

  // The next update, or null and the end of the watch.
  using Deliver = Delivery<ClusterUpdate>::Function;

  class Watcher {
   private:
    friend class ClusterFeed;
    // All guarded by the feed's mutex.
    bool started = false;
    bool complete = false;  // It has been told all that there was.
    bool fresh = true;      // It began with nothing.
    int64_t begun = 0;      // The newest update when it did.
    int64_t seen = 0;
    Deliver waiting;
    bool ended = false;
    absl::Status end;
  };

  ClusterFeed();
  ClusterFeed(const ClusterFeed&) = delete;
  ClusterFeed& operator=(const ClusterFeed&) = delete;

  // `key` names the worker or job; `over`: there is no such any more, and who comes later need not hear of it.
  void Publish(const std::string& key, v1::WatchClusterResponse update, bool over);

  bool watched() const;

  // The watcher goes on after the update that the token was with; with another token, or none, it is told all that is
  // there. RESOURCE_EXHAUSTED: there are too many.
  absl::Status Start(const std::shared_ptr<Watcher>& watcher, std::string_view resume_token);
  // Calls `deliver` once, with the next update or the end, now or from the thread that brings it about.
  // REQUIRES: the last `deliver` was called; it was not told the end.
  void Next(const std::shared_ptr<Watcher>& watcher, Deliver deliver);
  // Ends the watch.
  void End(const std::shared_ptr<Watcher>& watcher, const absl::Status& end);
  // Ends all watches, those to come too.
  void Close(const absl::Status& end);

 private:
  struct Entry {
    std::string key;
    ClusterUpdate update;
    bool over = false;
  };

  void Insert(const std::string& key, v1::WatchClusterResponse update, bool over) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  void Erase(int64_t sequence) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  ClusterUpdate NextFor(Watcher& watcher) const ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  ClusterUpdate BeginAnew(Watcher& watcher) const ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  ClusterUpdate Complete(Watcher& watcher) const ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  ClusterUpdate Dropped(int64_t count, int64_t sequence) const;
  Delivery<ClusterUpdate> Match(Watcher& watcher) const ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  std::string TokenFor(int64_t sequence) const;

  const std::string epoch_;  // Of this process.
  mutable absl::Mutex mutex_;
  int64_t sequence_ ABSL_GUARDED_BY(mutex_) = 0;              // Of the newest update.
  int64_t forgotten_ ABSL_GUARDED_BY(mutex_) = 0;             // Of the newest that left the list unreplaced.
  std::map<int64_t, Entry> entries_ ABSL_GUARDED_BY(mutex_);  // By sequence.
  std::map<std::string, int64_t> by_key_ ABSL_GUARDED_BY(mutex_);
  std::set<int64_t> over_ ABSL_GUARDED_BY(mutex_);  // Those entries that are over.
  std::set<std::shared_ptr<Watcher>> watchers_ ABSL_GUARDED_BY(mutex_);
  absl::Status closed_ ABSL_GUARDED_BY(mutex_);
};

}  // namespace gpipe::orchestrator

#endif  // GPIPE_ORCHESTRATOR_SCHEDULING_CLUSTER_FEED_H_
