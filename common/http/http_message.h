#ifndef GPIPE_COMMON_HTTP_HTTP_MESSAGE_H_
#define GPIPE_COMMON_HTTP_HTTP_MESSAGE_H_

#include <map>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <utility>

#include "absl/time/time.h"

namespace gpipe {

struct HttpRequest {
  std::string method = {};
  std::string path = {};  // Decoded, begins with '/'; nothing in it has been resolved.
  std::map<std::string, std::string> query = {};
  std::map<std::string, std::string> headers = {};  // Names in lower case.
  std::string body = {};
};

// A body that goes on as long as somebody reads it: server-sent events. One thread calls Next; it holds it for the
// stream's whole life.
class HttpStream {
 public:
  virtual ~HttpStream() = default;
  // What comes next, waited for at most `patience`: empty when nothing came, nullopt when the stream is over. A client
  // that has gone is noticed by what is sent, a comment when there is nothing else.
  virtual std::optional<std::string> Next(absl::Duration patience) = 0;
  // The server stops: Next must return at once from now on, also one that waits. Any thread.
  virtual void Cancel() = 0;
};

struct HttpResponse {
  int status = 200;
  std::string content_type = "text/plain; charset=utf-8";
  std::string body;
  std::map<std::string, std::string> headers;
  // Instead of a body.
  std::shared_ptr<HttpStream> stream;

  static HttpResponse Text(int status, std::string body) {
    HttpResponse response;
    response.status = status;
    response.body = std::move(body);
    return response;
  }
  static HttpResponse Events(std::shared_ptr<HttpStream> stream) {
    HttpResponse response;
    response.content_type = "text/event-stream";
    response.stream = std::move(stream);
    return response;
  }
};

}  // namespace gpipe

#endif  // GPIPE_COMMON_HTTP_HTTP_MESSAGE_H_
