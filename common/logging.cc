#include "common/logging.h"

#include <pthread.h>

#include <memory>
#include <string>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_replace.h"
#include "common/log_formatter.h"
#include "common/printable.h"
#include "spdlog/pattern_formatter.h"
#include "spdlog/sinks/stdout_sinks.h"
#include "spdlog/spdlog.h"

namespace gpipe {
namespace {

class EntryFormatter final : public spdlog::formatter {
 public:
  void format(const spdlog::details::log_msg& message, spdlog::memory_buf_t& out) override {
    const std::string text =
        absl::StrReplaceAll(Printable({message.payload.data(), message.payload.size()}), {{"\n", "\n  | "}});
    spdlog::details::log_msg shown = message;
    shown.payload = text;
    pattern_.format(shown, out);
  }
  std::unique_ptr<spdlog::formatter> clone() const override { return std::make_unique<EntryFormatter>(); }

 private:
  spdlog::pattern_formatter pattern_{"%Y-%m-%dT%H:%M:%S.%e%z %l %n %v"};
};

}  // namespace

std::unique_ptr<spdlog::formatter> MakeTextFormatter() { return std::make_unique<EntryFormatter>(); }

absl::Status InitLogging(std::string_view program, std::string_view level) {
  const std::string name(level);
  const auto parsed = spdlog::level::from_str(name == "warn" ? "warning" : name);
  if (parsed == spdlog::level::off || parsed == spdlog::level::critical) {
    return absl::InvalidArgumentError(
        absl::StrCat("log level '", name, "' is not one of trace, debug, info, warn, error"));
  }
  spdlog::set_default_logger(spdlog::stderr_logger_mt(std::string(program)));
  spdlog::set_formatter(MakeTextFormatter());
  spdlog::set_level(parsed);
  return absl::OkStatus();
}

void SetThreadName(std::string_view name) {
  pthread_setname_np(pthread_self(), std::string(name.substr(0, 15)).c_str());
}

}  // namespace gpipe
