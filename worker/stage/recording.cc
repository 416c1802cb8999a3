#include "worker/stage/recording.h"

#include <ATen/ATen.h>

#include <algorithm>
#include <utility>

#include "absl/strings/str_cat.h"
#include "common/status_macros.h"

namespace gpipe::worker {
namespace {

std::string NameOf(const StageCall& call) {
  constexpr const char* kNames[] = {"begin", "forward", "suspending", "resuming", "recompute", "backward", "end"};
  return absl::StrCat(kNames[static_cast<int>(call.kind)], " of micro-batch ", call.micro_batch);
}

// Received where it is read (Recording::Room).
bool IsThere(const at::Tensor& kept, const at::Tensor& given) {
  return kept.const_data_ptr() == given.const_data_ptr() && kept.strides() == given.strides();
}

absl::Status CopyTo(const at::Tensor& kept, const at::Tensor& given) {
  const bool same = kept.defined() == given.defined() &&
                    (!kept.defined() || (kept.sizes() == given.sizes() && kept.scalar_type() == given.scalar_type()));
  if (!same) return absl::InvalidArgumentError("is not what it was when the stage was recorded");
  if (kept.defined() && !IsThere(kept, given)) kept.copy_(given, /*non_blocking=*/true);
  return absl::OkStatus();
}

}  // namespace

void Recording::Watch(const StageCall& call, const std::vector<at::Tensor>& given) {
  std::vector<at::Tensor> copies;
  for (const at::Tensor& tensor : given) copies.push_back(tensor.defined() ? tensor.detach().clone() : tensor);
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
    recorded.results = {};
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

at::TensorList Recording::Room(StageCall::Kind kind, int micro_batch) const {
  constexpr size_t kAhead = 2;  // A gradient may be received before the micro-batch is computed again.
  for (size_t i = next_; i < std::min(next_ + kAhead, calls_.size()); ++i) {
    if (calls_[i].call.kind == kind && calls_[i].call.micro_batch == micro_batch) return calls_[i].given;
  }
  return {};
}

absl::StatusOr<PassResults> Recording::Replay(const StageCall& call, const std::vector<at::Tensor>& given) {
  if (next_ >= calls_.size() || !(calls_[next_].call == call)) {
    return absl::InternalError(absl::StrCat("the recorded stage expects another call than ", NameOf(call)));
  }
  const Recorded& recorded = calls_[next_++];
  for (size_t i = 0; i < recorded.given.size(); ++i) {
    const absl::Status copied = CopyTo(recorded.given[i], i < given.size() ? given[i] : at::Tensor());
    if (copied.ok()) continue;
    return absl::Status(copied.code(),
                        absl::StrCat(NameOf(call), ": what it is given at place ", i, " ", copied.message()));
  }
  recorded.graph->replay();
  return recorded.results;
}

}  // namespace gpipe::worker
