#ifndef GPIPE_COMMON_NET_CHANNEL_H_
#define GPIPE_COMMON_NET_CHANNEL_H_

#include <filesystem>
#include <memory>
#include <string>

#include "absl/status/statusor.h"
#include "common/net/tls_options.h"
#include "grpcpp/channel.h"
#include "grpcpp/security/credentials.h"
#include "grpcpp/support/channel_arguments.h"

namespace gpipe {

// The one place where gRPC channels are made.

// Whom to call, and who calls. Any number of channels may share credentials; they keep them.
struct Endpoint {
  std::string address;                                              // HOST:PORT
  std::shared_ptr<grpc::ChannelCredentials> credentials = nullptr;  // Null: plain text.
};

// Checks the files, and follows them from then on: whenever they are replaced, connections made later use the new ones,
// within kCertificateRefreshSeconds. The name of the server's certificate must be the address's host. `token_file`
// holds a bearer token that goes with each call; empty: there is none. Null when no file is given. INVALID_ARGUMENT as
// CheckTls, and for a token that would travel in plain text or is none.
absl::StatusOr<std::shared_ptr<grpc::ChannelCredentials>> MakeCredentials(const TlsOptions& tls, TlsUse use,
                                                                          const std::filesystem::path& token_file = {});

// With `arguments`, and what all connections have in common: keepalive that the server allows (common/net/server.h), no
// proxy, another try a second after one that failed. Connects with the first call.
std::shared_ptr<grpc::Channel> MakeChannel(const Endpoint& endpoint, grpc::ChannelArguments arguments = {});

}  // namespace gpipe

#endif  // GPIPE_COMMON_NET_CHANNEL_H_
