#ifndef GPIPE_COMMON_NET_TLS_FLAGS_H_
#define GPIPE_COMMON_NET_TLS_FLAGS_H_

#include "CLI/CLI.hpp"
#include "common/net/tls_options.h"

namespace gpipe {

// The flags of all programs that talk through gRPC, and their environment variables.
inline void AddTlsFlags(CLI::App& app, TlsOptions& options) {
  app.add_option("--tls-ca", options.ca, "Certificates that are trusted; encrypts all connections")
      ->envname("GPIPE_TLS_CA")
      ->type_name("FILE");
  app.add_option("--tls-cert", options.cert, "This program's certificate; its subject says name (CN) and role (OU)")
      ->envname("GPIPE_TLS_CERT")
      ->type_name("FILE");
  app.add_option("--tls-key", options.key, "The certificate's private key")
      ->envname("GPIPE_TLS_KEY")
      ->type_name("FILE");
}

}  // namespace gpipe

#endif  // GPIPE_COMMON_NET_TLS_FLAGS_H_
