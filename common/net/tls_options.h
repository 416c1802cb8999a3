#ifndef GPIPE_COMMON_NET_TLS_OPTIONS_H_
#define GPIPE_COMMON_NET_TLS_OPTIONS_H_

#include <filesystem>
#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"

namespace gpipe {

// The files, in PEM, by which a program proves who it is and knows whom to trust. None: plain text.
struct TlsOptions {
  std::filesystem::path ca;    // Those whose certificates are believed: one's own private CA, or several.
  std::filesystem::path cert;  // One's own certificate, signed by one of those; then intermediate ones, if any.
  std::filesystem::path key;   // Its private key.

  bool given() const { return !ca.empty() || !cert.empty() || !key.empty(); }
};

enum class TlsUse {
  kMutual,  // All three files are needed: the orchestrator, workers.
  kClient,  // A certificate with its key may be missing: a client may have a token instead.
};

// Whether the files can be used together, now: for before anything starts. INVALID_ARGUMENT names the flag and the
// file: it is missing, cannot be read, holds something else; the key is of another certificate; a certificate is not
// signed by the CA, has expired or is not valid yet. OK when none is given.
absl::Status CheckTls(const TlsOptions& options, TlsUse use);

// What the files hold; empty for those that are not given.
struct TlsTexts {
  std::string ca, cert, key;
};

// The texts, which CheckTls finds good.
absl::StatusOr<TlsTexts> ReadTls(const TlsOptions& options, TlsUse use);

}  // namespace gpipe

#endif  // GPIPE_COMMON_NET_TLS_OPTIONS_H_
