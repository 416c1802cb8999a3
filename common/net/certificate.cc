#include "common/net/certificate.h"

#include <openssl/err.h>
#include <openssl/x509_vfy.h>

#include <ctime>
#include <memory>
#include <vector>

#include "absl/strings/str_cat.h"
#include "common/net/pem.h"
#include "common/status_macros.h"

namespace gpipe {
namespace {

using Store = std::unique_ptr<X509_STORE, OpenSslFree<X509_STORE_free>>;
using StoreContext = std::unique_ptr<X509_STORE_CTX, OpenSslFree<X509_STORE_CTX_free>>;

// The text of the only entry of that kind; empty when there is none or several: who is meant must not depend on the
// order.
std::string OnlyEntry(const X509_NAME* subject, int kind) {
  const int index = X509_NAME_get_index_by_NID(subject, kind, -1);
  if (index < 0 || X509_NAME_get_index_by_NID(subject, kind, index) >= 0) return "";
  unsigned char* text = nullptr;
  const int size = ASN1_STRING_to_UTF8(&text, X509_NAME_ENTRY_get_data(X509_NAME_get_entry(subject, index)));
  if (size < 0) return "";
  std::string entry(reinterpret_cast<char*>(text), static_cast<size_t>(size));
  OPENSSL_free(text);
  return entry;
}

absl::Time ToTime(const ASN1_TIME* time) {
  std::tm parts = {};
  return ASN1_TIME_to_tm(time, &parts) == 1 ? absl::FromTimeT(timegm(&parts)) : absl::UnixEpoch();
}

std::string SerialOf(const X509* certificate) {
  BIGNUM* number = ASN1_INTEGER_to_BN(X509_get0_serialNumber(certificate), nullptr);
  char* text = number == nullptr ? nullptr : BN_bn2hex(number);
  std::string serial = text == nullptr ? "" : text;
  OPENSSL_free(text);
  BN_free(number);
  return serial;
}

Certificate Describe(const X509* certificate) {
  const X509_NAME* subject = X509_get_subject_name(certificate);
  return {OnlyEntry(subject, NID_commonName), OnlyEntry(subject, NID_organizationalUnitName), SerialOf(certificate),
          ToTime(X509_get0_notBefore(certificate)), ToTime(X509_get0_notAfter(certificate))};
}

}  // namespace

std::string UtcText(absl::Time time) { return absl::FormatTime("%Y-%m-%d %H:%M:%S UTC", time, absl::UTCTimeZone()); }

absl::StatusOr<Certificate> ParseCertificate(std::string_view pem) {
  GPIPE_ASSIGN_OR_RETURN(const std::vector<X509Ptr> all, ReadCertificates(pem));
  return Describe(all.front().get());
}

absl::Status CheckDates(const Certificate& certificate, absl::Time now) {
  if (now > certificate.not_after) {
    return absl::InvalidArgumentError(absl::StrCat("expired at ", UtcText(certificate.not_after)));
  }
  if (now >= certificate.not_before) return absl::OkStatus();
  return absl::InvalidArgumentError(absl::StrCat("is not valid before ", UtcText(certificate.not_before)));
}

absl::Status CheckKey(std::string_view cert_pem, std::string_view key_pem) {
  GPIPE_ASSIGN_OR_RETURN(const std::vector<X509Ptr> all, ReadCertificates(cert_pem));
  GPIPE_ASSIGN_OR_RETURN(const KeyPtr key, ReadKey(key_pem));
  const bool fits = X509_check_private_key(all.front().get(), key.get()) == 1;
  ERR_clear_error();
  return fits ? absl::OkStatus() : absl::InvalidArgumentError("is the key of another certificate");
}

absl::Status CheckIssuer(std::string_view cert_pem, std::string_view ca_pem) {
  GPIPE_ASSIGN_OR_RETURN(const std::vector<X509Ptr> chain, ReadCertificates(cert_pem));
  GPIPE_ASSIGN_OR_RETURN(const std::vector<X509Ptr> trusted, ReadCertificates(ca_pem));
  const Store store(X509_STORE_new());
  for (const X509Ptr& ca : trusted) X509_STORE_add_cert(store.get(), ca.get());
  const X509StackPtr others = ToStack(chain);
  const StoreContext context(X509_STORE_CTX_new());
  X509_STORE_CTX_init(context.get(), store.get(), chain.front().get(), others.get());
  const bool good = X509_verify_cert(context.get()) == 1;
  const int error = X509_STORE_CTX_get_error(context.get());
  ERR_clear_error();
  if (good) return absl::OkStatus();
  return absl::InvalidArgumentError(X509_verify_cert_error_string(error));
}

}  // namespace gpipe
