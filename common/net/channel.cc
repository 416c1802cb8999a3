#include "common/net/channel.h"

#include <algorithm>
#include <utility>

#include "absl/strings/ascii.h"
#include "absl/strings/str_cat.h"
#include "common/file.h"
#include "common/net/connection_times.h"
#include "common/status_macros.h"
#include "grpcpp/create_channel.h"
#include "grpcpp/security/tls_certificate_provider.h"
#include "grpcpp/security/tls_certificate_verifier.h"
#include "grpcpp/security/tls_credentials_options.h"

namespace gpipe {
namespace {

namespace tls_api = grpc::experimental;

constexpr size_t kMaxTokenBytes = 4096;

std::shared_ptr<grpc::ChannelCredentials> TlsCredentials(const TlsOptions& tls) {
  tls_api::TlsChannelCredentialsOptions options;
  options.set_certificate_provider(std::make_shared<tls_api::FileWatcherCertificateProvider>(
      tls.key.string(), tls.cert.string(), tls.ca.string(), kCertificateRefreshSeconds));
  options.watch_root_certs();
  if (!tls.cert.empty()) options.watch_identity_key_cert_pairs();
  options.set_certificate_verifier(std::make_shared<tls_api::HostNameCertificateVerifier>());
  return tls_api::TlsCredentials(options);
}

// Errors do not show what is in the file.
absl::StatusOr<std::string> ReadToken(const std::filesystem::path& path) {
  absl::StatusOr<std::string> text = ReadFile(path, kMaxTokenBytes);
  if (!text.ok()) return absl::InvalidArgumentError(absl::StrCat("--token-file: ", text.status().message()));
  absl::StripAsciiWhitespace(&*text);
  const auto fits = [](unsigned char c) { return absl::ascii_isgraph(c); };
  if (!text->empty() && std::all_of(text->begin(), text->end(), fits)) return text;
  return absl::InvalidArgumentError(
      absl::StrCat("--token-file ", path.string(), ": must hold one word of printable characters, the token"));
}

}  // namespace

absl::StatusOr<std::shared_ptr<grpc::ChannelCredentials>> MakeCredentials(const TlsOptions& tls, TlsUse use,
                                                                          const std::filesystem::path& token_file) {
  GPIPE_RETURN_IF_ERROR(CheckTls(tls, use));
  if (!tls.given() && token_file.empty()) return nullptr;
  if (!tls.given()) {
    return absl::InvalidArgumentError("--token-file needs --tls-ca: a token does not travel in plain text");
  }
  std::shared_ptr<grpc::ChannelCredentials> credentials = TlsCredentials(tls);
  if (token_file.empty()) return credentials;
  GPIPE_ASSIGN_OR_RETURN(const std::string token, ReadToken(token_file));
  return grpc::CompositeChannelCredentials(credentials, grpc::AccessTokenCredentials(token));
}

std::shared_ptr<grpc::Channel> MakeChannel(const Endpoint& endpoint, grpc::ChannelArguments arguments) {
  arguments.SetInt(GRPC_ARG_KEEPALIVE_TIME_MS, kKeepaliveMillis);
  arguments.SetInt(GRPC_ARG_KEEPALIVE_TIMEOUT_MS, kKeepaliveTimeoutMillis);
  arguments.SetInt(GRPC_ARG_HTTP2_MAX_PINGS_WITHOUT_DATA, 0);  // As many as it takes.
  // The defaults back off to two minutes; who waits should be back soon after the orchestrator is.
  arguments.SetInt(GRPC_ARG_INITIAL_RECONNECT_BACKOFF_MS, 100);
  arguments.SetInt(GRPC_ARG_MIN_RECONNECT_BACKOFF_MS, 2000);
  arguments.SetInt(GRPC_ARG_MAX_RECONNECT_BACKOFF_MS, 1000);
  arguments.SetInt(GRPC_ARG_ENABLE_HTTP_PROXY, 0);
  const auto credentials = endpoint.credentials ? endpoint.credentials : grpc::InsecureChannelCredentials();
  return grpc::CreateCustomChannel(endpoint.address, credentials, arguments);
}

}  // namespace gpipe
