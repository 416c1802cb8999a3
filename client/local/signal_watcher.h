#ifndef GPIPE_CLIENT_LOCAL_SIGNAL_WATCHER_H_
#define GPIPE_CLIENT_LOCAL_SIGNAL_WATCHER_H_

#include <functional>
#include <thread>

#include "absl/time/time.h"

namespace gpipe::client {

// While it lives, SIGINT, SIGTERM and SIGHUP do not end the process but call `on_signal` on a thread of its own, with
// the number of signals so far. When `patience` passes after a signal, that counts as another one.
// Make it before any other thread, because threads inherit which signals are blocked. At most one at a time.
class SignalWatcher {
 public:
  SignalWatcher(std::function<void(int count)> on_signal, absl::Duration patience);
  // on_signal does not run any more afterwards.
  ~SignalWatcher();
  SignalWatcher(const SignalWatcher&) = delete;
  SignalWatcher& operator=(const SignalWatcher&) = delete;

 private:
  void Watch();

  const std::function<void(int)> on_signal_;
  const absl::Duration patience_;
  int signal_fd_ = -1;
  int stop_fd_ = -1;
  std::jthread thread_;
};

}  // namespace gpipe::client

#endif  // GPIPE_CLIENT_LOCAL_SIGNAL_WATCHER_H_
