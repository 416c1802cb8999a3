#ifndef GPIPE_CLIENT_CLI_PRIVATE_CLUSTER_H_
#define GPIPE_CLIENT_CLI_PRIVATE_CLUSTER_H_

#include <memory>
#include <optional>
#include <stop_token>
#include <string>

#include "absl/base/thread_annotations.h"
#include "absl/status/status.h"
#include "absl/synchronization/mutex.h"
#include "client/api/cluster_client.h"
#include "client/local/local_cluster.h"
#include "client/local/signal_watcher.h"

namespace gpipe::client {

// A cluster of its own for one command, a client of it, and what Ctrl-C means meanwhile. The first one cancels the job,
// or stops what comes before there is one; the second one kills everything at once. Either way the destructor leaves
// no process, and no file but what LocalCluster::StopAndKeep keeps. Make it before any other thread; one thread uses
// it.
class PrivateCluster {
 public:
  PrivateCluster();
  ~PrivateCluster();
  PrivateCluster(const PrivateCluster&) = delete;
  PrivateCluster& operator=(const PrivateCluster&) = delete;

  // Returns when the orchestrator serves. The workers may still be joining, which takes them seconds in which files can
  // be read: the client waits for them before it submits or plans. bin_dir is filled in. `on_file` is the client's. At
  // most once.
  absl::Status Start(LocalClusterOptions options, OnFileProgress on_file);

  // REQUIRES: Start succeeded.
  ClusterClient& client() { return *client_; }
  LocalCluster& local() { return *cluster_; }

  // From now on the first Ctrl-C cancels this job; at once if there has been one.
  void CancelOnInterrupt(const std::string& job);

  // Why something really failed: CANCELLED when the user interrupted, the end of a child when there was one, else
  // `status` itself.
  absl::Status Explain(const absl::Status& status) const;

 private:
  void OnSignal(int count);
  absl::Status WaitForWorkers(int count);
  void Cancel(const std::string& address, const std::string& job);

  // Stops every wait and call, so that the command unwinds.
  std::stop_source abandon_;
  mutable absl::Mutex mutex_;
  bool interrupted_ ABSL_GUARDED_BY(mutex_) = false;
  std::string job_ ABSL_GUARDED_BY(mutex_);
  // Set and reset by the owning thread under the lock; read by it without.
  std::unique_ptr<LocalCluster> cluster_;
  std::unique_ptr<ClusterClient> client_;
  // Last: its thread uses all of the above.
  std::optional<SignalWatcher> watcher_;
};

}  // namespace gpipe::client

#endif  // GPIPE_CLIENT_CLI_PRIVATE_CLUSTER_H_
