#include "orchestrator/api/cluster_service.h"

#include "absl/strings/str_cat.h"
#include "common/field_error.h"
#include "common/printable.h"
#include "common/status_macros.h"
#include "common/version.h"
#include "orchestrator/api/unary.h"

namespace gpipe::orchestrator {
namespace {

constexpr size_t kMaxReason = 200;

// One that has not come since the orchestrator started.
v1::Worker Absent(const std::string& name) {
  v1::Worker worker;
  worker.set_name(name);
  worker.set_state(v1::Worker::STATE_LOST);
  return worker;
}

// As it is now; NOT_FOUND: neither is there one of that name, nor is the name drained.
absl::StatusOr<v1::Worker> Describe(Cluster& cluster, const std::string& name, absl::Time now) {
  WorkerRegistry& registry = cluster.registry();
  if (const WorkerEntry* entry = registry.Find(name); entry != nullptr) return DescribeWorker(*entry, now);
  const auto drained = registry.drained().find(name);
  if (drained == registry.drained().end()) {
    return absl::NotFoundError(absl::StrCat("no worker '", Printable(name), "'"));
  }
  v1::Worker worker = Absent(name);
  SetDrained(worker, drained->second);
  return worker;
}

absl::StatusOr<v1::Worker> Drain(Cluster& cluster, Store& store, const v1::DrainWorkerRequest& request,
                                 absl::Time now) {
  if (request.reason().size() > kMaxReason) {
    return FieldError("reason",
                      absl::StrCat("must have at most ", kMaxReason, " bytes, and has ", request.reason().size()));
  }
  GPIPE_RETURN_IF_ERROR(Describe(cluster, request.name(), now).status());
  const std::string reason = Printable(request.reason());
  GPIPE_RETURN_IF_ERROR(cluster.Drain(request.name(), reason));
  GPIPE_RETURN_IF_ERROR(store.AddDrained(request.name(), reason));
  return Describe(cluster, request.name(), now);
}

// It may be that nobody knows the name any more.
absl::StatusOr<v1::Worker> Undrain(Cluster& cluster, Store& store, const std::string& name, absl::Time now) {
  GPIPE_RETURN_IF_ERROR(Describe(cluster, name, now).status());
  GPIPE_RETURN_IF_ERROR(store.RemoveDrained(name));
  cluster.Undrain(name);
  return cluster.registry().Find(name) == nullptr ? Absent(name) : Describe(cluster, name, now);
}

}  // namespace

grpc::ServerUnaryReactor* ClusterService::ListWorkers(grpc::CallbackServerContext* context,
                                                      const v1::ListWorkersRequest*,
                                                      v1::ListWorkersResponse* response) {
  auto body = [loop = loop_, cluster = cluster_]() -> absl::StatusOr<v1::ListWorkersResponse> {
    v1::ListWorkersResponse listed;
    for (const WorkerEntry* entry : cluster->registry().All()) {
      if (!entry->left() || entry->drained) *listed.add_workers() = DescribeWorker(*entry, loop->Now());
    }
    for (const auto& [name, reason] : cluster->registry().drained()) {
      if (cluster->registry().Find(name) != nullptr) continue;
      SetDrained(*listed.add_workers() = Absent(name), reason);
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

grpc::ServerUnaryReactor* ClusterService::DrainWorker(grpc::CallbackServerContext* context,
                                                      const v1::DrainWorkerRequest* request, v1::Worker* response) {
  auto body = [this, request] { return Drain(*cluster_, *store_, *request, loop_->Now()); };
  return AnswerOnLoop<v1::Worker>(loop_, context, response, std::move(body));
}

grpc::ServerUnaryReactor* ClusterService::UndrainWorker(grpc::CallbackServerContext* context,
                                                        const v1::UndrainWorkerRequest* request, v1::Worker* response) {
  auto body = [this, request] { return Undrain(*cluster_, *store_, request->name(), loop_->Now()); };
  return AnswerOnLoop<v1::Worker>(loop_, context, response, std::move(body));
}

}  // namespace gpipe::orchestrator
