#include "common/net/pem.h"

#include <openssl/bio.h>
#include <openssl/err.h>
#include <openssl/pem.h>

namespace gpipe {
namespace {

using BioPtr = std::unique_ptr<BIO, OpenSslFree<BIO_free>>;

BioPtr Reading(std::string_view text) { return BioPtr(BIO_new_mem_buf(text.data(), static_cast<int>(text.size()))); }

}  // namespace

absl::StatusOr<std::vector<X509Ptr>> ReadCertificates(std::string_view pem) {
  std::vector<X509Ptr> all;
  const BioPtr bio = Reading(pem);
  while (X509* one = PEM_read_bio_X509(bio.get(), nullptr, nullptr, nullptr)) all.emplace_back(one);
  ERR_clear_error();
  if (all.empty()) return absl::InvalidArgumentError("holds no certificate in PEM");
  return all;
}

absl::StatusOr<KeyPtr> ReadKey(std::string_view pem) {
  // Without a callback OpenSSL would ask the terminal for a passphrase.
  const auto no_passphrase = [](char*, int, int, void*) { return 0; };
  KeyPtr key(PEM_read_bio_PrivateKey(Reading(pem).get(), nullptr, no_passphrase, nullptr));
  ERR_clear_error();
  if (key == nullptr) return absl::InvalidArgumentError("holds no private key in PEM that needs no passphrase");
  return key;
}

X509StackPtr ToStack(const std::vector<X509Ptr>& certificates) {
  X509StackPtr stack(sk_X509_new_null());
  for (const X509Ptr& one : certificates) sk_X509_push(stack.get(), one.get());
  return stack;
}

}  // namespace gpipe
