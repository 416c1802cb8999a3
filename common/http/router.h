#ifndef GPIPE_COMMON_HTTP_ROUTER_H_
#define GPIPE_COMMON_HTTP_ROUTER_H_

#include <map>
#include <string>
#include <string_view>

#include "common/http/http_server.h"

namespace gpipe {

// Which handler answers which path; see HttpServer::Handle. Constant once the server has started.
class Router {
 public:
  void Add(std::string_view method, std::string_view path, HttpServer::Handler handler);
  HttpResponse Answer(const HttpRequest& request) const;

 private:
  using Methods = std::map<std::string, HttpServer::Handler, std::less<>>;

  // Null when the path is not known.
  const Methods* Find(std::string_view path) const;

  std::map<std::string, Methods, std::less<>> exact_;
  std::map<std::string, Methods, std::less<>> below_;  // By what the paths begin with, up to a '/'.
};

}  // namespace gpipe

#endif  // GPIPE_COMMON_HTTP_ROUTER_H_
