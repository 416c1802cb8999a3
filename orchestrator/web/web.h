#ifndef GPIPE_ORCHESTRATOR_WEB_WEB_H_
#define GPIPE_ORCHESTRATOR_WEB_WEB_H_

#include "common/http/http_server.h"
#include "orchestrator/web/web_api.h"

namespace gpipe::orchestrator {

// Adds the page, at `/`, and the API that it uses to a server that has not started. `api` outlives the server's Stop.
void AddWebPage(HttpServer& server, WebApi& api);

}  // namespace gpipe::orchestrator

#endif  // GPIPE_ORCHESTRATOR_WEB_WEB_H_
