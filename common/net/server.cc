#include "common/net/server.h"

#include <memory>
#include <utility>

#include "common/net/connection_times.h"
#include "common/status_macros.h"
#include "grpcpp/resource_quota.h"
#include "grpcpp/security/server_credentials.h"
#include "grpcpp/security/tls_certificate_provider.h"
#include "grpcpp/security/tls_certificate_verifier.h"
#include "grpcpp/security/tls_credentials_options.h"

namespace gpipe {
namespace {

namespace tls_api = grpc::experimental;
using Connections = grpc::experimental::ExternalConnectionAcceptor;

constexpr int kHandshakeMillis = 10'000;
// Of services whose calls keep a thread each as long as they are open, as reflection's do.
constexpr int kMaxThreads = 64;

std::shared_ptr<grpc::ServerCredentials> MakeServerCredentials(const TlsOptions& tls) {
  if (!tls.given()) return grpc::InsecureServerCredentials();
  tls_api::TlsServerCredentialsOptions options(std::make_shared<tls_api::FileWatcherCertificateProvider>(
      tls.key.string(), tls.cert.string(), tls.ca.string(), kCertificateRefreshSeconds));
  options.watch_root_certs();
  options.watch_identity_key_cert_pairs();
  options.set_cert_request_type(GRPC_SSL_REQUEST_CLIENT_CERTIFICATE_AND_VERIFY);
  // A client has no host name to check.
  options.set_certificate_verifier(std::make_shared<tls_api::NoOpCertificateVerifier>());
  options.set_check_call_host(false);
  return tls_api::TlsServerCredentials(options);
}

// With one queue the least number of threads does not depend on that of cores.
void LimitThreads(grpc::ServerBuilder& builder) {
  grpc::ResourceQuota quota("server");
  quota.SetMaxThreads(kMaxThreads);
  builder.SetResourceQuota(quota);
  builder.SetSyncServerOption(grpc::ServerBuilder::NUM_CQS, 1);
}

}  // namespace

absl::StatusOr<std::unique_ptr<AcceptingPort>> AddPort(grpc::ServerBuilder& builder, const std::string& listen,
                                                       const TlsOptions& tls, const AcceptingPort::Limits& limits,
                                                       AcceptingPort::OnRefused on_refused) {
  GPIPE_RETURN_IF_ERROR(CheckTls(tls, TlsUse::kMutual));
  const std::shared_ptr<Connections> connections = builder.experimental().AddExternalConnectionAcceptor(
      grpc::ServerBuilder::experimental_type::ExternalConnectionType::FROM_FD, MakeServerCredentials(tls));
  builder.AddChannelArgument(GRPC_ARG_KEEPALIVE_TIME_MS, kKeepaliveMillis);
  builder.AddChannelArgument(GRPC_ARG_KEEPALIVE_TIMEOUT_MS, kKeepaliveTimeoutMillis);
  // A connection without calls whose client is gone keeps a descriptor, too.
  builder.AddChannelArgument(GRPC_ARG_KEEPALIVE_PERMIT_WITHOUT_CALLS, 1);
  builder.AddChannelArgument(GRPC_ARG_HTTP2_MAX_PINGS_WITHOUT_DATA, 0);
  builder.AddChannelArgument(GRPC_ARG_HTTP2_MIN_RECV_PING_INTERVAL_WITHOUT_DATA_MS, kLeastKeepaliveMillis);
  builder.AddChannelArgument(GRPC_ARG_MAX_CONCURRENT_STREAMS, kMaxCallsPerConnection);
  // A connection that does not say that it speaks HTTP/2 keeps its descriptor so long.
  builder.AddChannelArgument(GRPC_ARG_SERVER_HANDSHAKE_TIMEOUT_MS, kHandshakeMillis);
  LimitThreads(builder);
  builder.SetCompressionAlgorithmSupportStatus(GRPC_COMPRESS_DEFLATE, false);
  builder.SetCompressionAlgorithmSupportStatus(GRPC_COMPRESS_GZIP, false);
  builder.AddChannelArgument(GRPC_ARG_ENABLE_PER_MESSAGE_DECOMPRESSION, 0);
  const auto take = [connections](int listener, int connection) {
    Connections::NewConnectionParameters taken;
    taken.listener_fd = listener;
    taken.fd = connection;
    connections->HandleNewConnection(&taken);
  };
  return AcceptingPort::Bind(listen, limits, take, std::move(on_refused));
}

}  // namespace gpipe
