#ifndef GPIPE_CLIENT_LOCAL_LOCAL_CLUSTER_H_
#define GPIPE_CLIENT_LOCAL_LOCAL_CLUSTER_H_

#include <filesystem>
#include <functional>
#include <memory>
#include <stop_token>
#include <string>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/status/statusor.h"
#include "absl/synchronization/mutex.h"
#include "absl/synchronization/notification.h"
#include "client/local/process.h"
#include "common/file.h"

namespace gpipe::client {

struct LocalClusterOptions {
  std::filesystem::path bin_dir;  // Where gpipe-orchestrator and gpipe-worker are.
  int workers = 1;
  int threads = 1;                  // Of each worker.
  int gpus = 0;                     // 0: the workers are on the CPU; else worker i is on cuda:(i mod gpus).
  std::filesystem::path trace_dir;  // Where workers put traces; empty: they make none.
};

// An orchestrator and its workers on loopback, as child processes, with all their state in one temporary folder.
// Nothing of it is left when the object is gone, however it ends, unless StopAndKeep was called.
// Start and the destructor belong to one thread, which must outlive the cluster; other methods may be called by any.
class LocalCluster {
 public:
  // Ends when the orchestrator serves; workers may still be joining. `on_failure` is called, on another thread and at
  // most once, when a child ended that should not have: at once for the orchestrator, for a worker after a while in
  // which the orchestrator can say what that means for the job. CANCELLED when `stop` is stopped.
  static absl::StatusOr<std::unique_ptr<LocalCluster>> Start(const LocalClusterOptions& options,
                                                             const std::stop_token& stop,
                                                             std::function<void()> on_failure);
  // Stop, then removes the folder.
  ~LocalCluster();
  LocalCluster(const LocalCluster&) = delete;
  LocalCluster& operator=(const LocalCluster&) = delete;

  const std::string& address() const { return address_; }
  // Where the orchestrator keeps its files (common/artifacts/local_store.h).
  std::filesystem::path artifacts() const { return folder_.path() / "state" / "artifacts"; }
  // OK while no child has ended; then which one, how, and the last lines of its log.
  absl::Status Failure() const;
  // The last lines of the log of a child (`orchestrator`, `w0`); empty when there is none.
  std::string LogTail(const std::string& child) const;
  // Copies the logs of all children into `folder`, which is made if it is not there.
  absl::Status CopyLogs(const std::filesystem::path& folder) const;
  // Ends the workers, then the orchestrator: SIGTERM, time to end in order, SIGKILL.
  void Stop();
  // Stop; the destructor then leaves the folder, which is returned, with the orchestrator's state in `state`.
  std::filesystem::path StopAndKeep();
  // SIGKILL to all, for a user who will not wait. May run beside Stop, which then returns soon.
  void Kill();

 private:
  struct Child {
    std::string name;
    std::unique_ptr<ChildProcess> process;
  };

  LocalCluster(TemporaryFolder folder, std::function<void()> on_failure);
  absl::Status StartOrchestrator(const LocalClusterOptions& options, const std::stop_token& stop);
  absl::Status StartWorker(const LocalClusterOptions& options, int index);
  absl::Status StartChild(ProcessOptions options, const std::string& name);
  std::vector<ChildProcess*> Children() const;
  void OnExit(const std::string& name);
  std::filesystem::path LogOf(const std::string& child) const { return folder_.path() / (child + ".log"); }

  TemporaryFolder folder_;
  const std::function<void()> on_failure_;
  std::string address_;
  absl::Notification stopping_;
  mutable absl::Mutex mutex_;
  std::string first_ended_ ABSL_GUARDED_BY(mutex_);
  bool failure_told_ ABSL_GUARDED_BY(mutex_) = false;
  // The orchestrator first. Last, so that its threads are gone before what they use.
  std::vector<Child> children_ ABSL_GUARDED_BY(mutex_);
};

}  // namespace gpipe::client

#endif  // GPIPE_CLIENT_LOCAL_LOCAL_CLUSTER_H_
