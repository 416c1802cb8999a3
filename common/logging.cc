#include "common/logging.h"

#include <pthread.h>

#include <string>

#include "absl/strings/str_cat.h"
#include "spdlog/sinks/stdout_sinks.h"
#include "spdlog/spdlog.h"

namespace gpipe {

absl::Status InitLogging(std::string_view program, std::string_view level) {
  const std::string name(level);
  const auto parsed = spdlog::level::from_str(name == "warn" ? "warning" : name);
  if (parsed == spdlog::level::off || parsed == spdlog::level::critical) {
    return absl::InvalidArgumentError(
        absl::StrCat("log level '", name, "' is not one of trace, debug, info, warn, error"));
  }
  spdlog::set_default_logger(spdlog::stderr_logger_mt(std::string(program)));
  spdlog::set_pattern("%Y-%m-%dT%H:%M:%S.%e %l %n %v");
  spdlog::set_level(parsed);
  return absl::OkStatus();
}

void SetThreadName(std::string_view name) {
  pthread_setname_np(pthread_self(), std::string(name.substr(0, 15)).c_str());
}

}  // namespace gpipe
