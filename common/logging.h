#ifndef GPIPE_COMMON_LOGGING_H_
#define GPIPE_COMMON_LOGGING_H_

#include <string_view>

#include "absl/status/status.h"

namespace gpipe {

// Sets up spdlog's default logger once, in main: to stderr, one line an entry, with time, level and the program's name.
// INVALID_ARGUMENT when level is not trace | debug | info | warn | error.
absl::Status InitLogging(std::string_view program, std::string_view level);

// Names the calling thread for debuggers and /proc; at most 15 characters are kept.
void SetThreadName(std::string_view name);

}  // namespace gpipe

#endif  // GPIPE_COMMON_LOGGING_H_
