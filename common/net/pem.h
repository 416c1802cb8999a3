#ifndef GPIPE_COMMON_NET_PEM_H_
#define GPIPE_COMMON_NET_PEM_H_

#include <openssl/evp.h>
#include <openssl/x509.h>

#include <memory>
#include <string_view>
#include <vector>

#include "absl/status/statusor.h"

namespace gpipe {

template <auto kFree>
struct OpenSslFree {
  template <typename T>
  void operator()(T* object) const {
    kFree(object);
  }
};
struct OpenSslFreeStack {
  void operator()(STACK_OF(X509) * stack) const { sk_X509_free(stack); }
};
using X509Ptr = std::unique_ptr<X509, OpenSslFree<X509_free>>;
using KeyPtr = std::unique_ptr<EVP_PKEY, OpenSslFree<EVP_PKEY_free>>;
// Borrows what is in it.
using X509StackPtr = std::unique_ptr<STACK_OF(X509), OpenSslFreeStack>;

// All certificates, at least one; private keys and other blocks between them are passed over. INVALID_ARGUMENT: there
// is none.
absl::StatusOr<std::vector<X509Ptr>> ReadCertificates(std::string_view pem);

// INVALID_ARGUMENT: it is no private key without a passphrase.
absl::StatusOr<KeyPtr> ReadKey(std::string_view pem);

X509StackPtr ToStack(const std::vector<X509Ptr>& certificates);

}  // namespace gpipe

#endif  // GPIPE_COMMON_NET_PEM_H_
