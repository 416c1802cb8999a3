#include "orchestrator/api/cluster_service.h"

#include "common/version.h"
#include "orchestrator/api/unary.h"

namespace gpipe::orchestrator {
namespace {

v1::Worker ToProto(const WorkerEntry& entry, absl::Time now) {
  v1::Worker worker;
  worker.set_name(entry.name());
  worker.set_state(entry.state);
  *worker.mutable_hello() = entry.hello;
  if (!entry.attempt.job().empty()) *worker.mutable_attempt() = entry.attempt;
  *worker.mutable_activity() = entry.activity;
  if (entry.state == v1::Worker::STATE_UNREACHABLE) worker.set_reason(entry.unreachable);
  worker.set_heartbeat_age_seconds(absl::ToDoubleSeconds(now - entry.last_heard));
  return worker;
}

}  // namespace

grpc::ServerUnaryReactor* ClusterService::ListWorkers(grpc::CallbackServerContext* context,
                                                      const v1::ListWorkersRequest*,
                                                      v1::ListWorkersResponse* response) {
  auto body = [loop = loop_, cluster = cluster_]() -> absl::StatusOr<v1::ListWorkersResponse> {
    v1::ListWorkersResponse listed;
    for (const WorkerEntry* entry : cluster->registry().All()) {
      if (!entry->left()) *listed.add_workers() = ToProto(*entry, loop->Now());
    }
    return listed;
  };
  return AnswerOnLoop<v1::ListWorkersResponse>(loop_, context, response, std::move(body));
}

grpc::ServerUnaryReactor* ClusterService::GetVersion(grpc::CallbackServerContext* context, const v1::GetVersionRequest*,
                                                     v1::GetVersionResponse* response) {
  return AnswerOnLoop<v1::GetVersionResponse>(loop_, context, response, [disk = disk_] {
    v1::GetVersionResponse answer;
    answer.set_version(std::string(kVersion));
    answer.set_read_only(disk->why());
    return answer;
  });
}

}  // namespace gpipe::orchestrator
