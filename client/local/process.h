#ifndef GPIPE_CLIENT_LOCAL_PROCESS_H_
#define GPIPE_CLIENT_LOCAL_PROCESS_H_

#include <sys/types.h>

#include <filesystem>
#include <functional>
#include <memory>
#include <string>
#include <thread>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/status/statusor.h"
#include "absl/synchronization/mutex.h"
#include "absl/time/time.h"

namespace gpipe::client {

struct ProcessOptions {
  std::filesystem::path program;
  std::vector<std::string> arguments;  // Without the program's name.
  std::filesystem::path log;           // Takes its stdout and stderr, appended.
  std::vector<std::string> unset;      // Variables of our environment that it does not get.
  int inherited_fd = -1;               // Kept open in the child under the same number; all others are closed.
  // Runs once on a thread of the process object when the child has ended, for whatever reason. May be empty.
  std::function<void()> on_exit;
};

// A child process: in a process group of its own, so that a Ctrl-C on the terminal is not its business, and killed by
// the kernel when the thread that started it ends, so that it never outlives us. It is always reaped.
// Any thread may call any method; Start must be called from a thread that lives as long as the child should.
class ChildProcess {
 public:
  // NOT_FOUND: no such program. The destructor kills and reaps.
  static absl::StatusOr<std::unique_ptr<ChildProcess>> Start(ProcessOptions options);
  ~ChildProcess();
  ChildProcess(const ChildProcess&) = delete;
  ChildProcess& operator=(const ChildProcess&) = delete;

  pid_t pid() const { return pid_; }
  // Nothing happens to a child that has ended; its number may be another's by now.
  void Signal(int signal);
  // False when it still runs after so long.
  bool WaitFor(absl::Duration duration) const;
  // SIGTERM, time to end in order, SIGKILL.
  void Stop(absl::Duration patience);
  // `ended with 3`, `was killed by signal 9 (Killed)`, or `runs`.
  std::string HowItEnded() const;

 private:
  ChildProcess(pid_t pid, std::function<void()> on_exit);
  void Reap();
  bool EndedLocked() const ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_) { return ended_; }

  const pid_t pid_;
  const std::function<void()> on_exit_;
  mutable absl::Mutex mutex_;
  bool ended_ ABSL_GUARDED_BY(mutex_) = false;
  int wait_status_ ABSL_GUARDED_BY(mutex_) = 0;
  std::jthread waiter_;
};

}  // namespace gpipe::client

#endif  // GPIPE_CLIENT_LOCAL_PROCESS_H_
