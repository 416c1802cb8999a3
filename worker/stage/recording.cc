#include "worker/stage/recording.h"

#include <ATen/ATen.h>

#include <utility>

#include "absl/strings/str_cat.h"
#include "common/status_macros.h"

namespace gpipe::worker {
namespace {

std::string NameOf(const StageCall& call) {
  constexpr const char* kNames[] = {"begin", "forward", "suspending", "resuming", "recompute", "backward", "end"};
  return absl::StrCat(kNames[static_cast<int>(call.kind)], " of micro-batch ", call.micro_batch);
}

absl::Status CopyTo(const at::Tensor& kept, const at::Tensor& given, const std::string& name) {
  if (kept.sizes() == given.sizes() && kept.scalar_type() == given.scalar_type()) {
    kept.copy_(given, /*non_blocking=*/true);
    return absl::OkStatus();
  }
  return absl::InvalidArgumentError(absl::StrCat("'", name, "' is not what it was when the stage was recorded"));
}

}  // namespace

void Recording::Watch(const StageCall& call, const Values& given) {
  Values copies;
  for (const auto& [name, tensor] : given) copies[name] = tensor.detach().clone();
  calls_.push_back({call, std::move(copies), nullptr, {}});
}

absl::Status Recording::Record(GraphPool& pool, Make make) {
  absl::Status status;
  for (Recorded& recorded : calls_) {
    status = RecordOne(pool, make, recorded);
    if (!status.ok()) break;
  }
  recorded_ = status.ok();
  if (recorded_) return status;
  for (Recorded& recorded : calls_) {
    recorded.results.clear();
    recorded.graph.reset();
  }
  return status;
}

absl::Status Recording::RecordOne(GraphPool& pool, Make make, Recorded& recorded) {
  recorded.graph = std::make_unique<at::cuda::CUDAGraph>();
  return pool.Record(*recorded.graph, [&]() -> absl::Status {
    GPIPE_ASSIGN_OR_RETURN(recorded.results, make(recorded.call, recorded.given));
    return absl::OkStatus();
  });
}

absl::StatusOr<Values> Recording::Replay(const StageCall& call, const Values& given) {
  if (next_ >= calls_.size() || !(calls_[next_].call == call)) {
    return absl::InternalError(absl::StrCat("the recorded stage expects another call than ", NameOf(call)));
  }
  const Recorded& recorded = calls_[next_++];
  for (const auto& [name, kept] : recorded.given) {
    const auto now = given.find(name);
    if (now == given.end()) return absl::InvalidArgumentError(absl::StrCat("no value '", name, "'"));
    GPIPE_RETURN_IF_ERROR(CopyTo(kept, now->second, name));
  }
  recorded.graph->replay();
  return recorded.results;
}

}  // namespace gpipe::worker
