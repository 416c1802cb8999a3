#ifndef GPIPE_CLIENT_CLI_GLOBAL_OPTIONS_H_
#define GPIPE_CLIENT_CLI_GLOBAL_OPTIONS_H_

#include <memory>
#include <stop_token>
#include <string>

#include "client/api/cluster_client.h"
#include "client/cli/file_progress_line.h"
#include "common/net/tls_options.h"

namespace gpipe::client {

inline constexpr char kDefaultAddress[] = "127.0.0.1:7070";

// What every command understands.
struct GlobalOptions {
  std::string orchestrator;  // From the flag or GPIPE_ORCHESTRATOR; empty when neither is given.
  TlsOptions tls;
  std::string token_file;
  std::shared_ptr<grpc::ChannelCredentials> credentials = nullptr;  // Made of those before a command that connects.
  std::string format = "table";
  double timeout_seconds = 0;  // Of a unary call; 0 is the call's own.
  bool quiet = false;

  bool json() const { return format == "json"; }
  ClientOptions client(std::stop_token stop = {}) const {
    ClientOptions options;
    options.address = orchestrator.empty() ? kDefaultAddress : orchestrator;
    options.credentials = credentials;
    options.timeout = absl::Seconds(timeout_seconds);
    options.stop = std::move(stop);
    options.on_file = ShowFilesOn(stderr, quiet);
    return options;
  }
};

}  // namespace gpipe::client

#endif  // GPIPE_CLIENT_CLI_GLOBAL_OPTIONS_H_
