#include "worker/stage/captured_stage.h"

#include <ATen/ATen.h>
#include <c10/cuda/CUDACachingAllocator.h>
#include <c10/cuda/CUDAException.h>
#include <c10/cuda/CUDAGuard.h>

#include <algorithm>
#include <numeric>
#include <utility>

#include "absl/cleanup/cleanup.h"
#include "common/status_macros.h"
#include "common/string_view.h"
#include "spdlog/spdlog.h"
#include "worker/model/random.h"
#include "worker/torch_status.h"

namespace gpipe::worker {
namespace {

using Kind = StageCall::Kind;

// What a mini-batch is suspended under while it is recorded; ids of rounds are not negative.
constexpr int64_t kRecordedForward = -1;

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
std::vector<at::Tensor> TargetOf(const MiniBatch& mini_batch) {
  return mini_batch.target.defined() ? std::vector{mini_batch.target} : std::vector<at::Tensor>();
}

std::vector<at::Tensor> WithoutGradient(const std::vector<NamedTensor>& state) {
  std::vector<at::Tensor> without;
  for (const NamedTensor& named : state) {
    if (named.trainable && !named.tensor.grad().defined()) without.push_back(named.tensor);
  }
  return without;
}

// Another number says that one of the trained parameters has been written to.
int64_t VersionsOf(const std::vector<NamedTensor>& state) {
  int64_t versions = 0;
  for (const NamedTensor& named : state) versions += named.trainable ? named.tensor._version() : 0;
  return versions;
}

absl::StatusOr<PassResults> NothingElse(const absl::Status& status) {
  if (!status.ok()) return status;
  return PassResults();
}

absl::StatusOr<PassResults> AsResults(absl::StatusOr<std::vector<at::Tensor>> gradients) {
  if (!gradients.ok()) return gradients.status();
  return PassResults{.values = *std::move(gradients)};
}

at::Tensor Copied(const at::Tensor& tensor) { return tensor.defined() ? tensor.clone() : tensor; }

void CopyAll(PassResults& results) {
  for (at::Tensor& value : results.values) value = Copied(value);
  for (at::Tensor& output : results.outputs) output = Copied(output);
  results.loss = Copied(results.loss);
  results.count = Copied(results.count);
  results.hits = Copied(results.hits);
}

}  // namespace

CapturedStage::CapturedStage(std::unique_ptr<Stage> stage, int index, c10::Device device)
    : stage_(std::move(stage)), index_(index), device_(device), pool_(device) {}

CapturedStage::Way CapturedStage::ChooseWay() {
  const bool is_overtaken = suspended_ && suspended_->way == Way::kWatched && suspended_->overtaken;
  if (is_overtaken && mini_batch_.training) StopWatching();
  if (suspended_) return Way::kAsItIs;
  if (mini_batch_.training) MakeRoom();
  current_ = &known_[{mini_batch_.training, mini_batch_.micro_batch_sizes}];
  if (current_->given_up) return Way::kAsItIs;
  if (!current_->recording.watched()) return Way::kWatched;
  if (current_->recording.recorded()) return Way::kReplayed;
  const absl::Status recorded = Record();
  if (recorded.ok()) return Way::kReplayed;
  GiveUp(recorded);
  return Way::kAsItIs;
}

absl::Status CapturedStage::Record() {
  return CatchTorch([&]() -> absl::Status {
    c10::cuda::CUDACachingAllocator::emptyCache();  // Graphs cannot use what steps so far have left there.
    const int64_t before = ReservedBytes(device_);
    if (mini_batch_.training) stage_->KeepGradients(true);
    GPIPE_RETURN_IF_ERROR(mini_batch_.accumulates ? RecordAccumulating() : RecordCalls());
    current_->peak_saved_bytes = stage_->peak_saved_bytes();
    current_->bytes = ReservedBytes(device_) - before;
    spdlog::info("stage {} is captured{}: {} CUDA graphs for {} micro-batches, {} MiB", index_,
                 mini_batch_.training ? "" : " without training", current_->recording.size(),
                 mini_batch_.micro_batch_sizes.size(), current_->bytes >> 20);
    return absl::OkStatus();
  });
}

absl::Status CapturedStage::RecordCalls() {
  forward_id_ = kRecordedForward;
  return current_->recording.Record(*pool_,
                                    [this](const StageCall& call, const Tensors& given) { return Call(call, given); });
}

// The backward pass adds to gradients that must be there while it is recorded, and may not be there now.
absl::Status CapturedStage::RecordAccumulating() {
  const std::vector<at::Tensor> absent = WithoutGradient(stage_->state());
  stage_->AttachGradients();
  const size_t unknown = WithoutGradient(stage_->state()).size();
  const absl::Cleanup detach = [&absent] {
    for (const at::Tensor& parameter : absent) parameter.mutable_grad().reset();
  };
  GPIPE_RETURN_IF_ERROR(RecordCalls());
  if (WithoutGradient(stage_->state()).size() == unknown) return absl::OkStatus();
  return absl::FailedPreconditionError("a parameter has a gradient that it did not have before");
}

absl::StatusOr<PassResults> CapturedStage::Call(const StageCall& call, const Tensors& given) {
  switch (call.kind) {
    case Kind::kBegin: {
      MiniBatch begun = mini_batch_;
      if (!given.empty()) begun.target = given.front();
      return NothingElse(stage_->Begin(std::move(begun)));
    }
    case Kind::kForward:
      return stage_->Forward(call.micro_batch, given, call.mode);
    case Kind::kSuspend:
      return NothingElse(stage_->Suspend(forward_id_));
    case Kind::kResume:
      return NothingElse(stage_->Resume(forward_id_));
    case Kind::kRecompute:
      return NothingElse(stage_->Recompute(call.micro_batch));
    case Kind::kBackward:
      return AsResults(stage_->Backward(call.micro_batch, given));
    case Kind::kEnd:
      return NothingElse(stage_->End());
  }
  return absl::InternalError("unknown call");
}

absl::StatusOr<PassResults> CapturedStage::Run(const StageCall& call, const Tensors& given) {
  if (way_ == Way::kReplayed) return Replay(call, given);
  if (way_ == Way::kWatched) Watch(call, given);
  return Call(call, given);
}

void CapturedStage::Watch(const StageCall& call, const Tensors& given) {
  const absl::Status watched = CatchTorch([&] {
    current_->recording.Watch(call, given);
    return absl::OkStatus();
  });
  if (watched.ok()) return;
  current_->recording = Recording();
  current_->given_up = true;
  way_ = Way::kAsItIs;
  spdlog::warn("stage {} runs without CUDA graphs: {}", index_, StdView(watched.message()));
}

bool CapturedStage::captured(bool training) const {
  return std::ranges::any_of(known_, [training](const auto& known) {
    return known.first.training == training && known.second.recording.recorded();
  });
}

void CapturedStage::GiveUp(const absl::Status& why) {
  AbandonRecording();
  current_->given_up = true;
  current_->recording = Recording();
  // What it took before it failed goes with the last one of those that share it; the others are made again.
  if (absl::IsResourceExhausted(why)) {
    for (auto& [key, known] : known_) known.recording = Recording();
  }
  if (!captured(/*training=*/true)) stage_->KeepGradients(false);
  if (!captured(/*training=*/true) && !captured(/*training=*/false)) RenewPool();
  ForgetCudaError("a recording that was given up");
  spdlog::warn("stage {} runs without CUDA graphs: {}", index_, StdView(why.message()));
}

// Its end would work on values that were never computed.
void CapturedStage::AbandonRecording() {
  at::cuda::CUDAGraph unused;
  const absl::Status abandoned = pool_->Record(unused, [this] {
    stage_->Drop(kRecordedForward).IgnoreError();  // It may not have come so far.
    return stage_->Abandon();
  });
  if (!abandoned.ok()) spdlog::warn("stage {} after a recording: {}", index_, StdView(abandoned.message()));
}

// It needs what the recorded ones need, by the sample.
void CapturedStage::MakeRoom() {
  double needed = 0;
  for (const auto& [key, known] : known_) {
    if (!key.training || !known.recording.recorded()) continue;
    if (key.sizes == mini_batch_.micro_batch_sizes) return;
    const double by_sample = static_cast<double>(known.bytes) / SamplesIn(key.sizes);
    needed = std::max(needed, by_sample * SamplesIn(mini_batch_.micro_batch_sizes));
  }
  if (needed > static_cast<double>(FreeBytes(device_))) Forget();
}

void CapturedStage::Forget() {
  spdlog::info("stage {} lets its CUDA graphs go, whose memory is needed", index_);
  known_.clear();
  current_ = nullptr;
  way_ = Way::kAsItIs;
  stage_->KeepGradients(false);
  RenewPool();
}

void CapturedStage::RenewPool() {
  pool_.emplace(device_);
  c10::cuda::CUDACachingAllocator::emptyCache();
}

absl::Status CapturedStage::Begin(MiniBatch mini_batch) {
  const Tensors given = TargetOf(mini_batch);
  mini_batch_ = std::move(mini_batch);
  mini_batch_.target.reset();
  way_ = ChooseWay();
  if (way_ == Way::kReplayed) current_->recording.Rewind();
  return Run({.kind = Kind::kBegin}, given).status();
}

absl::StatusOr<PassResults> CapturedStage::Forward(int micro_batch, Tensors inputs, ForwardMode mode) {
  const StageCall call{Kind::kForward, micro_batch, mode};
  const bool can_be_repeated = mode == ForwardMode::kInference && way_ != Way::kReplayed;
  absl::StatusOr<PassResults> made = Run(call, inputs);
  if (!absl::IsResourceExhausted(made.status()) || !can_be_repeated) return made;
  const bool has_room_to_give = !suspended_ && (captured(/*training=*/true) || captured(/*training=*/false));
  if (!has_room_to_give) return made;
  Forget();
  return Run(call, inputs);
}

absl::Status CapturedStage::Recompute(int micro_batch) {
  return Run({.kind = Kind::kRecompute, .micro_batch = micro_batch}, {}).status();
}

absl::StatusOr<std::vector<at::Tensor>> CapturedStage::Backward(int micro_batch, Tensors gradients) {
  GPIPE_ASSIGN_OR_RETURN(PassResults made, Run({.kind = Kind::kBackward, .micro_batch = micro_batch}, gradients));
  return std::move(made.values);
}

at::TensorList CapturedStage::Room(pipeline::Direction pass, int micro_batch) const {
  if (way_ != Way::kReplayed) return {};
  return current_->recording.Room(pass == pipeline::Direction::kForward ? Kind::kForward : Kind::kBackward,
                                  micro_batch);
}

absl::Status CapturedStage::End() {
  if (way_ != Way::kAsItIs) suspended_.reset();
  if (suspended_ && mini_batch_.training) suspended_->overtaken = true;
  // Where they add up over mini-batches they may be let go of before this one is recorded.
  if (way_ == Way::kWatched && mini_batch_.accumulates) stage_->KeepGradients(true);
  return Run({.kind = Kind::kEnd}, {}).status();
}

absl::Status CapturedStage::Suspend(int64_t id) {
  forward_id_ = id;
  GPIPE_RETURN_IF_ERROR(Run({.kind = Kind::kSuspend}, {}).status());
  if (way_ == Way::kAsItIs) return absl::OkStatus();
  suspended_ = {.id = id, .way = way_, .known = current_, .mini_batch = mini_batch_, .versions = VersionsOf(state())};
  return absl::OkStatus();
}

absl::Status CapturedStage::Resume(int64_t id) {
  forward_id_ = id;
  way_ = Way::kAsItIs;
  mini_batch_.training = true;  // Nothing else is suspended.
  if (suspended_ && suspended_->id == id) {
    // As it is, autograd finds that of what it has kept; a graph would compute with old and new values.
    if (suspended_->way == Way::kReplayed && suspended_->versions != VersionsOf(state())) {
      return absl::FailedPreconditionError("a parameter has been changed since the forward pass that goes back");
    }
    way_ = suspended_->way;
    current_ = suspended_->known;
    mini_batch_ = suspended_->mini_batch;
    GPIPE_RETURN_IF_ERROR(CatchTorch([this] {
      stage_->AttachGradients();
      return absl::OkStatus();
    }));
  }
  return Run({.kind = Kind::kResume}, {}).status();
}

absl::Status CapturedStage::Drop(int64_t id) {
  if (!suspended_ || suspended_->id != id) return stage_->Drop(id);
  if (suspended_->way == Way::kReplayed) {
    suspended_.reset();
    return absl::OkStatus();
  }
  StopWatching();
  return stage_->Drop(id);
}

void CapturedStage::StopWatching() {
  suspended_->known->recording = Recording();
  suspended_.reset();
}

absl::Status CapturedStage::Abandon() { return stage_->Abandon(); }

int64_t CapturedStage::peak_saved_bytes() const {
  return way_ == Way::kReplayed ? current_->peak_saved_bytes : stage_->peak_saved_bytes();
}

// Random numbers are those of this forward: the graph reads their seed when it is replayed.
absl::StatusOr<PassResults> CapturedStage::Replay(const StageCall& call, const Tensors& given) {
  return CatchTorch([&] {
    absl::StatusOr<PassResults> results;
    const LayerContext context{mini_batch_.training, false, mini_batch_.seed, mini_batch_.step, call.micro_batch};
    DrawSeeded(device_, context, 0, [&](const at::Generator&) { results = current_->recording.Replay(call, given); });
    if (results.ok() && !mini_batch_.training) CopyAll(*results);
    return results;
  });
}

}  // namespace gpipe::worker
