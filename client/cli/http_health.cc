#include "client/cli/http_health.h"

#include <httplib.h>

#include "absl/strings/str_cat.h"
#include "client/cli/attend.h"

namespace gpipe::client {
namespace {

constexpr time_t kPatienceSeconds = 5;

}  // namespace

absl::StatusOr<ExitCode> HttpHealth(const GlobalOptions& global, const HealthOptions& options) {
  const std::string url = absl::StrCat(global.tls.given() ? "https://" : "http://", options.http);
  httplib::Client client(url);
  // As probes of Kubernetes: nothing is told to who answers, and a worker's certificate names no host.
  client.enable_server_certificate_verification(false);
  const auto patience = global.timeout_seconds > 0 ? static_cast<time_t>(global.timeout_seconds) + 1 : kPatienceSeconds;
  client.set_connection_timeout(patience);
  client.set_read_timeout(patience);
  const httplib::Result answer = client.Get(options.ready ? "/readyz" : "/livez");
  if (!answer) {
    return absl::UnavailableError(absl::StrCat("nobody answers at ", url, ": ", httplib::to_string(answer.error())));
  }
  if (!global.quiet) Print(answer->body);
  return answer->status == 200 ? ExitCode::kSucceeded : ExitCode::kFailed;
}

}  // namespace gpipe::client
