#include "common/net/grpc_log.h"

#include <cstdlib>
#include <string>
#include <string_view>

#include "absl/strings/str_cat.h"
#include "common/log_limiter.h"
#include "grpc/support/log.h"
#include "spdlog/spdlog.h"

namespace gpipe {
namespace {

constexpr int kLinesPerSecond = 10;
// What gRPC says at its level `debug` of a client that was not let in, with its address and the reason.
constexpr std::string_view kHandshake = "Handshaking failed: ";

// The same of a handshake at its level `error`, without more.
constexpr std::string_view kShorter = "Handshake failed with fatal error";

// Without what the programmers of gRPC would like to know: `{file:"./src/core/...`.
std::string_view WithoutDetails(std::string_view message) { return message.substr(0, message.find(" {file:")); }

// gRPC takes a plain function, so this is the one that it calls; it keeps nothing but how much was said.
void Log(gpr_log_func_args* entry) {
  static LogLimiter limiter(kLinesPerSecond);
  const std::string_view message(entry->message);
  const bool handshake = message.starts_with(kHandshake);
  if (!handshake && (entry->severity != GPR_LOG_SEVERITY_ERROR || message.starts_with(kShorter))) return;
  const auto left_out = limiter.Pass();
  if (!left_out) return;
  const std::string more = *left_out == 0 ? "" : absl::StrCat(" (and ", *left_out, " more)");
  if (handshake) {
    spdlog::warn("a handshake with a client failed: {}{}", WithoutDetails(message.substr(kHandshake.size())), more);
  } else {
    spdlog::warn("gRPC: {}{}", message, more);
  }
}

bool LeftAsItIs() { return std::getenv("GRPC_VERBOSITY") != nullptr; }

}  // namespace

void LogGrpc() {
  if (LeftAsItIs()) return;
  gpr_set_log_function(&Log);
  gpr_set_log_verbosity(GPR_LOG_SEVERITY_DEBUG);
}

void SilenceGrpc() {
  if (!LeftAsItIs()) gpr_set_log_function([](gpr_log_func_args*) {});
}

}  // namespace gpipe
