#include "common/net/certificate_watch.h"

#include <string>
#include <utility>

#include "absl/time/clock.h"
#include "common/file.h"
#include "common/logging.h"
#include "common/net/certificate.h"
#include "common/string_view.h"
#include "spdlog/spdlog.h"

namespace gpipe {
namespace {

absl::StatusOr<Certificate> ReadCertificate(const std::filesystem::path& path) {
  const absl::StatusOr<std::string> pem = ReadFile(path);
  return pem.ok() ? ParseCertificate(*pem) : pem.status();
}

}  // namespace

CertificateWatch::CertificateWatch(TlsOptions tls, std::function<void()> on_change, absl::Duration interval)
    : tls_(std::move(tls)), on_change_(std::move(on_change)), interval_(interval) {
  if (!tls_.cert.empty()) thread_ = std::jthread([this] { Run(); });
}

CertificateWatch::~CertificateWatch() { stopped_.Notify(); }

CertificateWatch::Stamps CertificateWatch::Look() const {
  return {StampOf(tls_.ca).value_or(FileStamp()), StampOf(tls_.cert).value_or(FileStamp()),
          StampOf(tls_.key).value_or(FileStamp())};
}

void CertificateWatch::Run() {
  SetThreadName("certificates");
  Stamps seen = Look();
  TellNew();
  WarnOfEnd();
  while (!stopped_.WaitForNotificationWithTimeout(interval_)) {
    WarnOfEnd();
    if (const Stamps now = Look(); now == std::exchange(seen, now)) continue;
    if (const absl::Status usable = CheckTls(tls_, TlsUse::kMutual); !usable.ok()) {
      spdlog::error("the new certificate cannot be used: {}", StdView(usable.message()));
      continue;
    }
    TellNew();
    if (on_change_) on_change_();
  }
}

void CertificateWatch::TellNew() const {
  const absl::StatusOr<Certificate> own = ReadCertificate(tls_.cert);
  if (!own.ok()) return;  // Half of a change: the other half is seen, too.
  spdlog::info("TLS with the certificate of '{}' (serial {}), valid until {}", own->name, own->serial,
               UtcText(own->not_after));
}

void CertificateWatch::WarnOfEnd() {
  const absl::Time now = absl::Now();
  if (now - warned_ < absl::Hours(24)) return;
  warned_ = now;
  for (const std::filesystem::path& path : {tls_.cert, tls_.ca}) {
    const absl::StatusOr<Certificate> certificate = ReadCertificate(path);
    if (!certificate.ok() || certificate->not_after - now > kSoon) continue;
    spdlog::warn("the certificate {} {} at {}: renew it", path.string(),
                 certificate->not_after < now ? "expired" : "expires", UtcText(certificate->not_after));
  }
}

}  // namespace gpipe
