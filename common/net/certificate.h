#ifndef GPIPE_COMMON_NET_CERTIFICATE_H_
#define GPIPE_COMMON_NET_CERTIFICATE_H_

#include <string>
#include <string_view>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/time/time.h"

namespace gpipe {

// What a certificate says, so far as it matters here.
struct Certificate {
  std::string name;  // CN of the subject; empty: it has none, or several.
  std::string unit;  // OU of the subject, the role; empty: it has none, or several.
  std::string serial;
  absl::Time not_before, not_after;
};

// `2026-01-31 12:34:56 UTC`: how the dates of certificates are told.
std::string UtcText(absl::Time time);

// The first certificate in `pem`. INVALID_ARGUMENT: there is none.
absl::StatusOr<Certificate> ParseCertificate(std::string_view pem);

// Whether it is valid at that time; INVALID_ARGUMENT says that it has expired, or is not valid yet, and when.
absl::Status CheckDates(const Certificate& certificate, absl::Time now);

// Whether `key_pem` is the private key of the first certificate in `cert_pem`. INVALID_ARGUMENT: it is not, or it is no
// key without a passphrase.
absl::Status CheckKey(std::string_view cert_pem, std::string_view key_pem);

// Whether the first certificate in `cert_pem` leads to one of those in `ca_pem`, through the others in `cert_pem`, and
// all are valid now. INVALID_ARGUMENT says why not.
absl::Status CheckIssuer(std::string_view cert_pem, std::string_view ca_pem);

}  // namespace gpipe

#endif  // GPIPE_COMMON_NET_CERTIFICATE_H_
