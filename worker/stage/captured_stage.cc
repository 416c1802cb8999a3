#include "worker/stage/captured_stage.h"

#include <ATen/ATen.h>
#include <c10/cuda/CUDACachingAllocator.h>
#include <c10/cuda/CUDAException.h>
#include <c10/cuda/CUDAGuard.h>

#include <algorithm>
#include <numeric>
#include <utility>

#include "common/status_macros.h"
#include "common/string_view.h"
#include "spdlog/spdlog.h"
#include "worker/model/random.h"
#include "worker/torch_status.h"

namespace gpipe::worker {
namespace {

using Kind = StageCall::Kind;

constexpr char kTarget[] = "target";

int64_t ReservedBytes(c10::Device device) {
  const auto stats = c10::cuda::CUDACachingAllocator::getDeviceStats(device.index());
  return stats.reserved_bytes[static_cast<size_t>(c10::CachingAllocator::StatType::AGGREGATE)].current;
}

int64_t FreeBytes(c10::Device device) {
  size_t free = 0, total = 0;
  const c10::cuda::CUDAGuard guard(device);
  C10_CUDA_CHECK(cudaMemGetInfo(&free, &total));
  return static_cast<int64_t>(free);
}

double SamplesIn(const std::vector<int64_t>& sizes) {
  return static_cast<double>(std::accumulate(sizes.begin(), sizes.end(), int64_t{0}));
}

// What Begin is given.
Values TargetOf(const MiniBatch& mini_batch) {
  return mini_batch.target.defined() ? Values{{kTarget, mini_batch.target}} : Values{};
}

absl::StatusOr<Values> NothingElse(const absl::Status& status) {
  if (!status.ok()) return status;
  return Values();
}

}  // namespace

CapturedStage::CapturedStage(std::unique_ptr<Stage> stage, int index, c10::Device device)
    : stage_(std::move(stage)), index_(index), device_(device), pool_(device) {}

CapturedStage::Way CapturedStage::WayOf(const MiniBatch& mini_batch) {
  if (!mini_batch.training) return Way::kAsItIs;
  MakeRoom(mini_batch);
  current_ = &known_[mini_batch.micro_batch_sizes];
  if (current_->given_up) return Way::kAsItIs;
  if (!current_->recording.watched()) return Way::kWatched;
  if (current_->recording.recorded()) return Way::kReplayed;
  const absl::Status recorded = Record(mini_batch);
  if (recorded.ok()) return Way::kReplayed;
  GiveUp(recorded);
  return Way::kAsItIs;
}

absl::Status CapturedStage::Record(const MiniBatch& mini_batch) {
  return CatchTorch([&]() -> absl::Status {
    c10::cuda::CUDACachingAllocator::emptyCache();  // Graphs cannot use what steps so far have left there.
    const int64_t before = ReservedBytes(device_);
    stage_->KeepGradients(true);
    GPIPE_RETURN_IF_ERROR(current_->recording.Record(
        pool_, [&](const StageCall& call, const Values& given) { return Call(call, mini_batch, given); }));
    current_->peak_saved_bytes = stage_->peak_saved_bytes();
    current_->bytes = ReservedBytes(device_) - before;
    spdlog::info("stage {} is captured: {} CUDA graphs for {} micro-batches, {} MiB", index_,
                 current_->recording.size(), mini_batch.micro_batch_sizes.size(), current_->bytes >> 20);
    return absl::OkStatus();
  });
}

absl::StatusOr<Values> CapturedStage::Call(const StageCall& call, const MiniBatch& mini_batch, const Values& given) {
  switch (call.kind) {
    case Kind::kBegin: {
      MiniBatch begun = mini_batch;
      if (begun.target.defined()) begun.target = given.at(kTarget);
      return NothingElse(stage_->Begin(std::move(begun)));
    }
    case Kind::kForward:
      return stage_->Forward(call.micro_batch, given, call.mode);
    case Kind::kRecompute:
      return NothingElse(stage_->Recompute(call.micro_batch));
    case Kind::kBackward:
      return stage_->Backward(call.micro_batch, given);
    case Kind::kEnd:
      return NothingElse(stage_->End());
  }
  return absl::InternalError("unknown call");
}

bool CapturedStage::captured() const {
  return std::ranges::any_of(known_, [](const auto& known) { return known.second.recording.recorded(); });
}

void CapturedStage::GiveUp(const absl::Status& why) {
  // The end of that mini-batch would work on values that were never computed: it is not executed either.
  at::cuda::CUDAGraph unused;
  const absl::Status abandoned = pool_.Record(unused, [this] { return stage_->Abandon(); });
  if (!abandoned.ok()) spdlog::warn("stage {} after a recording: {}", index_, StdView(abandoned.message()));
  current_->recording = Recording();
  current_->given_up = true;
  if (!captured()) stage_->KeepGradients(false);
  ForgetCudaError("a recording that was given up");
  spdlog::warn("stage {} runs without CUDA graphs: {}", index_, StdView(why.message()));
}

// It needs what the recorded ones need, by the sample.
void CapturedStage::MakeRoom(const MiniBatch& mini_batch) {
  double needed = 0;
  for (const auto& [sizes, known] : known_) {
    if (!known.recording.recorded()) continue;
    if (sizes == mini_batch.micro_batch_sizes) return;
    needed =
        std::max(needed, static_cast<double>(known.bytes) * SamplesIn(mini_batch.micro_batch_sizes) / SamplesIn(sizes));
  }
  if (needed > static_cast<double>(FreeBytes(device_))) Forget();
}

void CapturedStage::Forget() {
  spdlog::info("stage {} lets its CUDA graphs go, whose memory is needed", index_);
  known_.clear();
  current_ = nullptr;
  stage_->KeepGradients(false);
  c10::cuda::CUDACachingAllocator::emptyCache();
}

absl::Status CapturedStage::Begin(MiniBatch mini_batch) {
  way_ = WayOf(mini_batch);
  const Values given = TargetOf(mini_batch);
  mini_batch_ = mini_batch;
  mini_batch_.target.reset();
  if (way_ == Way::kReplayed) {
    current_->recording.Rewind();
    return Replay({.kind = Kind::kBegin}, given).status();
  }
  if (way_ == Way::kWatched) current_->recording.Watch({.kind = Kind::kBegin}, given);
  return stage_->Begin(std::move(mini_batch));
}

absl::StatusOr<Values> CapturedStage::Forward(int micro_batch, Values inputs, ForwardMode mode) {
  const StageCall call{Kind::kForward, micro_batch, mode};
  if (way_ == Way::kReplayed) return Replay(call, inputs);
  if (way_ == Way::kWatched) current_->recording.Watch(call, inputs);
  if (mode != ForwardMode::kInference || !captured()) return stage_->Forward(micro_batch, std::move(inputs), mode);
  absl::StatusOr<Values> made = stage_->Forward(micro_batch, inputs, mode);
  if (!absl::IsResourceExhausted(made.status())) return made;
  Forget();
  return stage_->Forward(micro_batch, std::move(inputs), mode);
}

absl::Status CapturedStage::Recompute(int micro_batch) {
  const StageCall call{.kind = Kind::kRecompute, .micro_batch = micro_batch};
  if (way_ == Way::kReplayed) return Replay(call, {}).status();
  if (way_ == Way::kWatched) current_->recording.Watch(call, {});
  return stage_->Recompute(micro_batch);
}

absl::StatusOr<Values> CapturedStage::Backward(int micro_batch, Values gradients) {
  const StageCall call{.kind = Kind::kBackward, .micro_batch = micro_batch};
  if (way_ == Way::kReplayed) return Replay(call, gradients);
  if (way_ == Way::kWatched) current_->recording.Watch(call, gradients);
  return stage_->Backward(micro_batch, std::move(gradients));
}

absl::Status CapturedStage::End() {
  if (way_ == Way::kReplayed) return Replay({.kind = Kind::kEnd}, {}).status();
  if (way_ == Way::kWatched) current_->recording.Watch({.kind = Kind::kEnd}, {});
  return stage_->End();
}

absl::Status CapturedStage::Abandon() { return stage_->Abandon(); }

int64_t CapturedStage::peak_saved_bytes() const {
  return way_ == Way::kReplayed ? current_->peak_saved_bytes : stage_->peak_saved_bytes();
}

// Random numbers are those of this forward: the graph reads their seed when it is replayed.
absl::StatusOr<Values> CapturedStage::Replay(const StageCall& call, const Values& given) {
  return CatchTorch([&] {
    absl::StatusOr<Values> results;
    const LayerContext context{true, false, mini_batch_.seed, mini_batch_.step, call.micro_batch};
    DrawSeeded(device_, context, 0, [&](const at::Generator&) { results = current_->recording.Replay(call, given); });
    return results;
  });
}

}  // namespace gpipe::worker
