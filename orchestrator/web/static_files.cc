#include "orchestrator/web/static_files.h"

#include "absl/strings/str_cat.h"
#include "common/sha256.h"
#include "common/string_view.h"

namespace gpipe::orchestrator {
namespace {

constexpr std::string_view kPolicy =
    "default-src 'self'; base-uri 'none'; form-action 'self'; frame-ancestors 'none'; object-src 'none'";
constexpr size_t kTagDigits = 20;

std::string TypeOf(std::string_view name) {
  if (name.ends_with(".html")) return "text/html; charset=utf-8";
  if (name.ends_with(".css")) return "text/css; charset=utf-8";
  if (name.ends_with(".js")) return "text/javascript; charset=utf-8";
  if (name.ends_with(".svg")) return "image/svg+xml";
  return "application/octet-stream";
}

std::string TagOf(const StaticFile& file) {
  Sha256 hash;
  hash.Update(file.content);
  return absl::StrCat("\"", hash.HexDigest().substr(0, kTagDigits), "\"");
}

}  // namespace

std::string PathOf(const StaticFile& file) {
  return file.name == "index.html" ? "/" : absl::StrCat("/", AbslView(file.name));
}

HttpResponse ServeStatic(const StaticFile& file, const HttpRequest& request) {
  HttpResponse response;
  const std::string tag = TagOf(file);
  response.content_type = TypeOf(file.name);
  response.headers = {{"ETag", tag},
                      {"Cache-Control", "no-cache"},
                      {"Content-Security-Policy", std::string(kPolicy)},
                      {"Referrer-Policy", "no-referrer"}};
  const auto known = request.headers.find("if-none-match");
  if (known != request.headers.end() && known->second.find(tag) != std::string::npos) {
    response.status = 304;
  } else {
    response.body = file.content;
  }
  return response;
}

}  // namespace gpipe::orchestrator
