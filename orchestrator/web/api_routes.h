#ifndef GPIPE_ORCHESTRATOR_WEB_API_ROUTES_H_
#define GPIPE_ORCHESTRATOR_WEB_API_ROUTES_H_

#include <optional>
#include <string>
#include <string_view>

#include "absl/types/span.h"
#include "google/protobuf/descriptor.h"

namespace gpipe::orchestrator {

// Which address stands for which RPC.
struct ApiRoute {
  std::string_view method;   // Of HTTP.
  std::string_view pattern;  // Below kApiRoot; at most one {field} of the request stands for anything without a '/'.
  std::string_view rpc;      // `gpipe.v1.JobService.GetJob`
};

inline constexpr std::string_view kApiRoot = "/api/v1/";

absl::Span<const ApiRoute> AllApiRoutes();

const google::protobuf::MethodDescriptor& MethodOf(const ApiRoute& route);

struct ApiMatch {
  const ApiRoute* route = nullptr;  // Null: there is no such path, or it has other methods.
  bool known_path = false;
  std::string field, value;  // Of the request, from the path; empty: none.
};

// `path` as decoded, from kApiRoot on.
ApiMatch FindApiRoute(std::string_view method, std::string_view path);

}  // namespace gpipe::orchestrator

#endif  // GPIPE_ORCHESTRATOR_WEB_API_ROUTES_H_
