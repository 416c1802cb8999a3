#include "worker/engine/round_trace.h"

#include <torch/csrc/autograd/profiler_kineto.h>

#include <algorithm>
#include <set>
#include <utility>

#include "common/file.h"
#include "common/status_macros.h"
#include "spdlog/spdlog.h"
#include "worker/model/device_speed.h"
#include "worker/torch_status.h"

namespace gpipe::worker {
namespace {

namespace profiler = torch::autograd::profiler;
using torch::profiler::impl::ActivityType;

constexpr int64_t kWarmUpRounds = 3;
constexpr int64_t kTracedRounds = 2;
constexpr int64_t kMostRounds = kWarmUpRounds + kTracedRounds;

torch::profiler::impl::ProfilerConfig Config() {
  return torch::profiler::impl::ProfilerConfig(torch::profiler::impl::ProfilerState::KINETO);
}

std::set<ActivityType> ActivitiesOf(c10::Device device) {
  if (device.is_cuda()) return {ActivityType::CPU, ActivityType::CUDA};
  return {ActivityType::CPU};
}

}  // namespace

RoundTrace::RoundTrace(std::filesystem::path file, c10::Device device, std::optional<int64_t> rounds)
    : file_(std::move(file)),
      device_(device),
      first_round_(std::clamp<int64_t>(rounds.value_or(kMostRounds) - kTracedRounds, 0, kWarmUpRounds)) {}

RoundTrace::~RoundTrace() {
  if (recording_) CatchTorch([] { return profiler::disableProfiler(), absl::OkStatus(); }).IgnoreError();
}

absl::Status RoundTrace::BeginRound(int64_t index) {
  if (file_.empty()) return absl::OkStatus();
  if (index == first_round_) return Start();
  return recording_ && index == first_round_ + kTracedRounds ? Save() : absl::OkStatus();
}

absl::Status RoundTrace::Finish() { return recording_ ? Save() : absl::OkStatus(); }

absl::Status RoundTrace::SetUpProcess(c10::Device device) {
  return CatchTorch([&] {
    profiler::prepareProfiler(Config(), ActivitiesOf(device));
    profiler::enableProfiler(Config(), ActivitiesOf(device), {});
    profiler::disableProfiler();
    return absl::OkStatus();
  });
}

// The device is far behind the host; what it does outside of the trace's time is not in it.
absl::Status RoundTrace::Start() {
  return CatchTorch([this] {
    SynchronizeDevice(device_);
    profiler::prepareProfiler(Config(), ActivitiesOf(device_));
    profiler::enableProfiler(Config(), ActivitiesOf(device_), {});
    recording_ = true;
    return absl::OkStatus();
  });
}

absl::Status RoundTrace::Save() {
  recording_ = false;
  std::error_code error;
  std::filesystem::create_directories(file_.parent_path(), error);
  if (error) return ErrnoStatus(error.value(), "cannot make the folder", file_.parent_path());
  GPIPE_RETURN_IF_ERROR(CatchTorch([this] {
    SynchronizeDevice(device_);
    profiler::disableProfiler()->save(file_);
    return absl::OkStatus();
  }));
  spdlog::info("traced rounds {} to {}: {}", first_round_, first_round_ + kTracedRounds - 1, file_.string());
  return absl::OkStatus();
}

TracedAction::TracedAction(const pipeline::Action& action) : record_(at::RecordScope::USER_SCOPE) {
  if (record_.isActive()) record_.before(pipeline::ToString(action));
}

TracedAction::TracedAction(const char* name) : record_(at::RecordScope::USER_SCOPE) {
  if (record_.isActive()) record_.before(name);
}

}  // namespace gpipe::worker
