#ifndef GPIPE_COMMON_NET_SERVER_H_
#define GPIPE_COMMON_NET_SERVER_H_

#include <memory>
#include <string>

#include "absl/status/statusor.h"
#include "common/net/accepting_port.h"
#include "common/net/tls_options.h"
#include "grpcpp/server_builder.h"

namespace gpipe {

// The one place where gRPC servers are given their port.

// Adds a port, to be started when the server is built and stopped before it shuts down, and what all servers have in
// common: keepalive, limits on connections, on the time that a handshake and on the calls that one connection may take,
// on threads of services that block them (RESOURCE_EXHAUSTED), no port shared with another process, no compression
// (UNIMPLEMENTED): a message that is small on its way could be of any size when it is unpacked, which gRPC does before
// anybody is asked. With TLS a client's certificate is checked, but it may have none: who may do what is the services'
// to say. The files are followed as by MakeCredentials. INVALID_ARGUMENT as CheckTls; UNAVAILABLE: the address cannot
// be bound.
absl::StatusOr<std::unique_ptr<AcceptingPort>> AddPort(grpc::ServerBuilder& builder, const std::string& listen,
                                                       const TlsOptions& tls, const AcceptingPort::Limits& limits = {},
                                                       AcceptingPort::OnRefused on_refused = nullptr);

// Calls that one connection may have open at once; more wait in the client.
inline constexpr int kMaxCallsPerConnection = 2048;

}  // namespace gpipe

#endif  // GPIPE_COMMON_NET_SERVER_H_
