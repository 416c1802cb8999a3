#ifndef GPIPE_CLIENT_CLI_INTERRUPTION_H_
#define GPIPE_CLIENT_CLI_INTERRUPTION_H_

#include <cstdlib>
#include <stop_token>

#include "absl/time/time.h"
#include "client/cli/exit_code.h"
#include "client/local/signal_watcher.h"

namespace gpipe::client {

// While it lives, Ctrl-C does not end the process but stops a token; a second one ends it at once. Make it before any
// other thread.
class Interruption {
 public:
  std::stop_token token() const { return source_.get_token(); }
  bool happened() const { return source_.stop_requested(); }

 private:
  void OnSignal(int count) {
    if (count > 1) std::_Exit(static_cast<int>(ExitCode::kCancelled));
    source_.request_stop();
  }

  std::stop_source source_;
  SignalWatcher watcher_{[this](int count) { OnSignal(count); }, absl::Hours(24)};
};

}  // namespace gpipe::client

#endif  // GPIPE_CLIENT_CLI_INTERRUPTION_H_
