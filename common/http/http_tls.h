#ifndef GPIPE_COMMON_HTTP_HTTP_TLS_H_
#define GPIPE_COMMON_HTTP_HTTP_TLS_H_

#include <openssl/ssl.h>

#include "absl/status/status.h"
#include "common/http/http_server.h"

namespace gpipe {

// Makes `context` serve TLS 1.2 and later with the files, as HttpOptions says; `files` must outlive it.
// INVALID_ARGUMENT as CheckTls.
absl::Status SetUpTls(const TlsOptions& files, SSL_CTX& context);

}  // namespace gpipe

#endif  // GPIPE_COMMON_HTTP_HTTP_TLS_H_
