#include "common/http/router.h"

#include <utility>

#include "absl/strings/str_join.h"

namespace gpipe {

void Router::Add(std::string_view method, std::string_view path, HttpServer::Handler handler) {
  auto& paths = path.ends_with("/*") ? below_ : exact_;
  if (path.ends_with("/*")) path.remove_suffix(1);
  paths[std::string(path)][std::string(method)] = std::move(handler);
}

const Router::Methods* Router::Find(std::string_view path) const {
  if (const auto found = exact_.find(path); found != exact_.end()) return &found->second;
  for (size_t end = path.rfind('/'); end != std::string_view::npos; end = path.rfind('/')) {
    if (const auto found = below_.find(path.substr(0, end + 1)); found != below_.end()) return &found->second;
    path = path.substr(0, end);
  }
  return nullptr;
}

HttpResponse Router::Answer(const HttpRequest& request) const {
  const Methods* methods = Find(request.path);
  if (methods == nullptr) return HttpResponse::Text(404, "there is nothing here\n");
  const auto found = methods->find(request.method == "HEAD" ? "GET" : request.method);
  if (found != methods->end()) return found->second(request);
  HttpResponse refused = HttpResponse::Text(405, "this path has other methods\n");
  refused.headers["Allow"] =
      absl::StrJoin(*methods, ", ", [](std::string* out, const auto& method) { out->append(method.first); });
  return refused;
}

}  // namespace gpipe
