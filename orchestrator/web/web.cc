#include "orchestrator/web/web.h"

#include "absl/strings/str_cat.h"
#include "common/string_view.h"
#include "orchestrator/web/api_routes.h"
#include "orchestrator/web/static_files.h"

namespace gpipe::orchestrator {

void AddWebPage(HttpServer& server, WebApi& api) {
  for (const StaticFile& file : AllStaticFiles()) {
    server.Handle("GET", PathOf(file), [&file](const HttpRequest& request) { return ServeStatic(file, request); });
  }
  for (const char* method : {"GET", "POST"}) {
    server.Handle(method, absl::StrCat(AbslView(kApiRoot), "*"),
                  [&api](const HttpRequest& request) { return api.Answer(request); });
  }
}

}  // namespace gpipe::orchestrator
