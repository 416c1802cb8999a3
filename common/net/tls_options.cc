#include "common/net/tls_options.h"

#include <string>
#include <string_view>

#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "common/file.h"
#include "common/net/certificate.h"
#include "common/status_macros.h"
#include "common/string_view.h"

namespace gpipe {
namespace {

constexpr size_t kMaxBytes = 1 << 20;

// One of the flags and its file.
struct Given {
  std::string_view flag;
  const std::filesystem::path& path;
};

absl::Status Wrong(const Given& given, std::string_view what) {
  return absl::InvalidArgumentError(absl::StrCat(AbslView(given.flag), " ", given.path.string(), ": ", AbslView(what)));
}

absl::Status At(const Given& given, const absl::Status& status) {
  return status.ok() ? status : Wrong(given, StdView(status.message()));
}

absl::StatusOr<std::string> Read(const Given& given) {
  absl::StatusOr<std::string> text = ReadFile(given.path, kMaxBytes);
  if (!text.ok()) return absl::InvalidArgumentError(absl::StrCat(AbslView(given.flag), ": ", text.status().message()));
  return text;
}

absl::Status CheckDatesOf(const Given& given, std::string_view pem) {
  const absl::StatusOr<Certificate> certificate = ParseCertificate(pem);
  if (!certificate.ok()) return At(given, certificate.status());
  return At(given, CheckDates(*certificate, absl::Now()));
}

absl::Status CheckAllGiven(const TlsOptions& options, TlsUse use) {
  if (options.ca.empty()) return absl::InvalidArgumentError("--tls-cert and --tls-key need --tls-ca");
  if (options.cert.empty() && !options.key.empty()) return absl::InvalidArgumentError("--tls-key needs --tls-cert");
  if (options.key.empty() && !options.cert.empty()) return absl::InvalidArgumentError("--tls-cert needs --tls-key");
  if (use == TlsUse::kClient || !options.cert.empty()) return absl::OkStatus();
  return absl::InvalidArgumentError("--tls-ca needs --tls-cert and --tls-key");
}

}  // namespace

absl::Status CheckTls(const TlsOptions& options, TlsUse use) { return ReadTls(options, use).status(); }

absl::StatusOr<TlsTexts> ReadTls(const TlsOptions& options, TlsUse use) {
  TlsTexts texts;
  if (!options.given()) return texts;
  GPIPE_RETURN_IF_ERROR(CheckAllGiven(options, use));
  const Given ca = {"--tls-ca", options.ca}, cert = {"--tls-cert", options.cert}, key = {"--tls-key", options.key};
  GPIPE_ASSIGN_OR_RETURN(texts.ca, Read(ca));
  GPIPE_RETURN_IF_ERROR(CheckDatesOf(ca, texts.ca));
  if (options.cert.empty()) return texts;
  GPIPE_ASSIGN_OR_RETURN(texts.cert, Read(cert));
  GPIPE_RETURN_IF_ERROR(CheckDatesOf(cert, texts.cert));
  GPIPE_ASSIGN_OR_RETURN(texts.key, Read(key));
  GPIPE_RETURN_IF_ERROR(At(key, CheckKey(texts.cert, texts.key)));
  const absl::Status issued = CheckIssuer(texts.cert, texts.ca);
  if (issued.ok()) return texts;
  return Wrong(cert, absl::StrCat("is not trusted by --tls-ca ", options.ca.string(), ": ", issued.message()));
}

}  // namespace gpipe
