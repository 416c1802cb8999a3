#ifndef GPIPE_WORKER_COMM_NCCL_WATCHDOG_H_
#define GPIPE_WORKER_COMM_NCCL_WATCHDOG_H_

#include <functional>
#include <thread>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/status/status.h"
#include "absl/synchronization/mutex.h"
#include "worker/comm/nccl_comm.h"

namespace gpipe::worker {

// A thread that looks for failed operations of NCCL communicators, and aborts them all, on a failure or on demand.
//
// An abort of NCCL can itself hang. Then neither the device's memory nor its streams can be used again: when one takes
// longer than half a minute the watchdog ends the process, whose supervisor starts a fresh one.
class NcclWatchdog {
 public:
  // `comms` outlive the watchdog. `on_error` is called on its thread, before it aborts, at most once.
  NcclWatchdog(std::vector<NcclComm*> comms, std::function<void(const absl::Status&)> on_error);
  NcclWatchdog(const NcclWatchdog&) = delete;
  NcclWatchdog& operator=(const NcclWatchdog&) = delete;
  // Finishes an abort under way.
  ~NcclWatchdog();

  // Returns at once. Any thread.
  void AbortAll();

 private:
  void Run();
  void AbortWithinDeadline();
  // Sleeps until the next look or until told to do something.
  void Pause(bool* abort, bool* stop);
  absl::Status FirstError();

  const std::vector<NcclComm*> comms_;
  const std::function<void(const absl::Status&)> on_error_;
  absl::Mutex mutex_;
  bool abort_ ABSL_GUARDED_BY(mutex_) = false;
  bool stop_ ABSL_GUARDED_BY(mutex_) = false;
  std::thread thread_;
};

}  // namespace gpipe::worker

#endif  // GPIPE_WORKER_COMM_NCCL_WATCHDOG_H_
