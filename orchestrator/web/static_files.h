#ifndef GPIPE_ORCHESTRATOR_WEB_STATIC_FILES_H_
#define GPIPE_ORCHESTRATOR_WEB_STATIC_FILES_H_

#include <string>
#include <string_view>
#include <vector>

#include "common/http/http_message.h"

namespace gpipe::orchestrator {

// A file of the page, compiled into the program.
struct StaticFile {
  std::string_view name;
  std::string_view content;
};

// All of orchestrator/web/static; made by embed.cmake.
const std::vector<StaticFile>& AllStaticFiles();

// `/style.css`; index.html is at `/`.
std::string PathOf(const StaticFile& file);
// 304 where the client has it already. Nothing but this orchestrator's own files may run in the page, or show it in
// another one.
HttpResponse ServeStatic(const StaticFile& file, const HttpRequest& request);

}  // namespace gpipe::orchestrator

#endif  // GPIPE_ORCHESTRATOR_WEB_STATIC_FILES_H_
