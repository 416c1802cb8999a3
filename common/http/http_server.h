#ifndef GPIPE_COMMON_HTTP_HTTP_SERVER_H_
#define GPIPE_COMMON_HTTP_HTTP_SERVER_H_

#include <cstddef>
#include <functional>
#include <memory>
#include <string>
#include <string_view>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "common/http/http_message.h"
#include "common/net/tls_options.h"

namespace gpipe {

struct HttpOptions {
  std::string listen;  // HOST:PORT; port 0 lets the kernel choose.
  // HTTPS with these. No client is asked for a certificate, which a browser would show for whoever makes it send a
  // request. They are read again for each connection, so that renewed ones need no restart; while those on the disk
  // cannot be used together those of the start are.
  TlsOptions tls;
  bool insecure = false;  // Plain text on an address that other machines can reach.
  size_t max_body_bytes = 64 << 10;
  // Connections that are served at once, each by a thread, which is made when it is needed; of these at most `streams`
  // are streams, so that there is always room for the rest. As many more wait as there are threads, and then the
  // kernel's.
  size_t threads = 40;
  size_t streams = 32;
  absl::Duration timeout = absl::Seconds(5);     // For a request to arrive, and for a part of an answer to be taken.
  absl::Duration heartbeat = absl::Seconds(10);  // Of streams that have nothing to say.
};

// Serves HTTP/1.1, or HTTPS: what operators' programs and browsers ask. cpp-httplib with limits on what a connection
// may take (common/http/connection.h).
//
// Handlers are added, then Start is called, once. They run on the server's threads, several at a time, also the same
// one; what they use must live until Stop has returned. One thread starts and stops.
class HttpServer {
 public:
  using Handler = std::function<HttpResponse(const HttpRequest&)>;

  HttpServer();
  // As Stop.
  ~HttpServer();
  HttpServer(const HttpServer&) = delete;
  HttpServer& operator=(const HttpServer&) = delete;

  // `path` is exact, or ends with "/*" and then stands for all paths below; an exact one wins over those, a longer one
  // over a shorter. HEAD is answered by GET's handler. Other methods of a known path get 405, other paths 404.
  void Handle(std::string_view method, std::string_view path, Handler handler);

  // INVALID_ARGUMENT: a bad or refused address, or TLS files that cannot be used, by name; UNAVAILABLE: the address
  // cannot be bound.
  absl::Status Start(const HttpOptions& options);

  // HOST:PORT as bound; REQUIRES: started.
  const std::string& address() const { return address_; }

  // Cancels the streams, lets requests that are being answered end, and joins all threads. Again: nothing.
  void Stop();

 private:
  class Impl;
  std::unique_ptr<Impl> impl_;
  std::string address_;
};

}  // namespace gpipe

#endif  // GPIPE_COMMON_HTTP_HTTP_SERVER_H_
