#include "orchestrator/web/api_routes.h"

#include "gpipe/v1/monitoring.pb.h"
#include "gpipe/v1/pipeline_service.pb.h"

namespace gpipe::orchestrator {
namespace {

// What the page needs; docs/web.md has the table for others. Submitting and files are for gRPC.
constexpr ApiRoute kRoutes[] = {
    {"GET", "version", "gpipe.v1.ClusterService.GetVersion"},
    {"GET", "watch", "gpipe.v1.MonitoringService.WatchCluster"},
    {"GET", "workers", "gpipe.v1.ClusterService.ListWorkers"},
    {"POST", "workers/{name}:drain", "gpipe.v1.ClusterService.DrainWorker"},
    {"POST", "workers/{name}:undrain", "gpipe.v1.ClusterService.UndrainWorker"},
    {"GET", "jobs", "gpipe.v1.JobService.ListJobs"},
    {"GET", "jobs/{id}", "gpipe.v1.JobService.GetJob"},
    {"GET", "jobs/{id}/watch", "gpipe.v1.JobService.WatchJob"},
    {"GET", "jobs/{id}/events", "gpipe.v1.JobService.ListJobEvents"},
    {"GET", "jobs/{id}/metrics", "gpipe.v1.JobService.ListJobMetrics"},
    {"GET", "jobs/{job}/timeline", "gpipe.v1.MonitoringService.GetTimeline"},
    {"POST", "jobs/{id}:pause", "gpipe.v1.JobService.PauseJob"},
    {"POST", "jobs/{id}:resume", "gpipe.v1.JobService.ResumeJob"},
    {"POST", "jobs/{id}:checkpoint", "gpipe.v1.JobService.CheckpointJob"},
    {"POST", "jobs/{id}:cancel", "gpipe.v1.JobService.CancelJob"},
};

bool Matches(std::string_view pattern, std::string_view path, ApiMatch& match) {
  const size_t open = pattern.find('{');
  if (open == std::string_view::npos) return pattern == path;
  const size_t close = pattern.find('}');
  const std::string_view before = pattern.substr(0, open), after = pattern.substr(close + 1);
  if (path.size() <= before.size() + after.size() || !path.starts_with(before) || !path.ends_with(after)) return false;
  const std::string_view value = path.substr(before.size(), path.size() - before.size() - after.size());
  if (value.find('/') != std::string_view::npos) return false;
  match.field = pattern.substr(open + 1, close - open - 1);
  match.value = value;
  return true;
}

}  // namespace

absl::Span<const ApiRoute> AllApiRoutes() { return kRoutes; }

// The messages are named so that their files are in the program: the pool finds services by name only.
const google::protobuf::MethodDescriptor& MethodOf(const ApiRoute& route) {
  google::protobuf::LinkMessageReflection<v1::ListJobsRequest>();
  google::protobuf::LinkMessageReflection<v1::WatchClusterRequest>();
  return *google::protobuf::DescriptorPool::generated_pool()->FindMethodByName(std::string(route.rpc));
}

ApiMatch FindApiRoute(std::string_view method, std::string_view path) {
  ApiMatch match;
  if (!path.starts_with(kApiRoot)) return match;
  path.remove_prefix(kApiRoot.size());
  for (const ApiRoute& route : kRoutes) {
    ApiMatch found;
    if (!Matches(route.pattern, path, found)) continue;
    match.known_path = true;
    if (route.method != method) continue;
    found.known_path = true;
    found.route = &route;
    return found;
  }
  return match;
}

}  // namespace gpipe::orchestrator
