#include "common/http/http_tls.h"

#include <openssl/err.h>

#include <vector>

#include "common/net/pem.h"
#include "common/status_macros.h"
#include "common/string_view.h"
#include "spdlog/spdlog.h"

namespace gpipe {
namespace {

struct Identity {
  std::vector<X509Ptr> certificates;  // One's own, then what leads to the authority.
  KeyPtr key;
};

absl::StatusOr<Identity> ReadIdentity(const TlsOptions& files) {
  GPIPE_ASSIGN_OR_RETURN(const TlsTexts texts, ReadTls(files, TlsUse::kMutual));
  Identity identity;
  GPIPE_ASSIGN_OR_RETURN(identity.certificates, ReadCertificates(texts.cert));
  GPIPE_ASSIGN_OR_RETURN(identity.key, ReadKey(texts.key));
  return identity;
}

X509StackPtr ChainOf(const Identity& identity) {
  X509StackPtr chain = ToStack(identity.certificates);
  sk_X509_shift(chain.get());
  return chain;
}

// For each new connection. Where the files cannot be used together (they are just being renewed, say) those that the
// context was given at the start serve on; CertificateWatch tells of it, once.
int UseNewest(SSL* connection, void* files) {
  const absl::StatusOr<Identity> identity = ReadIdentity(*static_cast<const TlsOptions*>(files));
  if (!identity.ok()) {
    spdlog::debug("HTTPS goes on with the certificate of the start: {}", StdView(identity.status().message()));
    return 1;
  }
  return SSL_use_cert_and_key(connection, identity->certificates.front().get(), identity->key.get(),
                              ChainOf(*identity).get(), 1);
}

}  // namespace

absl::Status SetUpTls(const TlsOptions& files, SSL_CTX& context) {
  GPIPE_ASSIGN_OR_RETURN(const Identity identity, ReadIdentity(files));
  SSL_CTX_set_min_proto_version(&context, TLS1_2_VERSION);
  // A session that is resumed would go on with the certificate of its beginning.
  SSL_CTX_set_options(&context, SSL_OP_NO_TICKET | SSL_OP_NO_RENEGOTIATION);
  SSL_CTX_set_session_cache_mode(&context, SSL_SESS_CACHE_OFF);
  const bool used = SSL_CTX_use_cert_and_key(&context, identity.certificates.front().get(), identity.key.get(),
                                             ChainOf(identity).get(), 1) == 1;
  ERR_clear_error();
  if (!used) return absl::InvalidArgumentError("--tls-cert and --tls-key cannot serve HTTPS");
  SSL_CTX_set_cert_cb(&context, UseNewest, const_cast<TlsOptions*>(&files));
  return absl::OkStatus();
}

}  // namespace gpipe
