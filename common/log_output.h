#ifndef GPIPE_COMMON_LOG_OUTPUT_H_
#define GPIPE_COMMON_LOG_OUTPUT_H_

#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <string_view>

#include "absl/base/thread_annotations.h"
#include "absl/status/status.h"
#include "absl/synchronization/mutex.h"

namespace gpipe {

// How a daemon's log looks, and where it goes.
struct LogOutput {
  // A file is moved aside (to NAME.1.EXT, ...) when it is so large, and so many old ones are kept.
  static constexpr size_t kMaxFileBytes = 64 << 20;
  static constexpr size_t kOldFiles = 4;

  bool json = false;  // One object a line, else text.
  std::string file;   // Instead of stderr, which then gets errors only; empty: stderr.
  size_t max_file_bytes = kMaxFileBytes;
};

// What a log entry is about, as far as it is known.
struct LogContext {
  std::string worker = {};
  std::string job = {};
  int attempt = 0;    // 0: of none.
  int stage = -1;     // -1: of none.
  int64_t step = -1;  // -1: of none.
};

// `job`, and with it `attempt`, or `worker`, where the entry begins with them, as entries do: `job x-1 attempt 2: ...`.
LogContext ContextOf(std::string_view text);

// Who knows what the process is working on, for the entries that do not say so themselves. Any thread.
class LogContextSource {
 public:
  using Function = std::function<LogContext()>;

  // `context` is asked with each entry from now on, by the thread that logs, so it must not log; null: nobody any more.
  void Follow(Function context);
  LogContext Now() const;

 private:
  mutable absl::Mutex mutex_;  // Held before the locks that `context_` takes.
  Function context_ ABSL_GUARDED_BY(mutex_);
};

// Directs the log that InitLogging has set up; once, after it. INVALID_ARGUMENT: the file cannot be written. `source`
// may be null.
absl::Status SetLogOutput(const LogOutput& output, std::shared_ptr<const LogContextSource> source = nullptr);

}  // namespace gpipe

#endif  // GPIPE_COMMON_LOG_OUTPUT_H_
