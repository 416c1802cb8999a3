#include "worker/model/profile.h"

#include <ATen/ATen.h>
#include <ATen/cuda/CUDAEvent.h>
#include <ATen/cuda/CUDAGraph.h>
#include <torch/csrc/autograd/autograd.h>
#include <torch/csrc/autograd/grad_mode.h>
#include <torch/csrc/autograd/variable.h>

#include <algorithm>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "common/status_macros.h"
#include "worker/model/graph_pool.h"
#include "worker/model/memory_meter.h"
#include "worker/model/random.h"
#include "worker/model/tensor_layout.h"
#include "worker/torch_status.h"

namespace gpipe::worker {
namespace {

constexpr absl::Duration kTotalTime = absl::Seconds(4);
constexpr absl::Duration kEnoughTime = absl::Milliseconds(20);   // For one layer, once it has run often enough.
constexpr absl::Duration kLongestRun = absl::Seconds(1);         // What is expected to take longer is not run.
constexpr absl::Duration kLongWarmUp = absl::Milliseconds(500);  // What took so long is not repeated.
constexpr size_t kEnoughRuns = 5;
constexpr size_t kMostRuns = 25;
// Launching a graph takes a GPU as long as some small kernels: so what is short is repeated in it.
constexpr size_t kRepeats = 8;
constexpr absl::Duration kShortRun = absl::Milliseconds(2);
constexpr uint64_t kSeed = 1;  // Of the values to measure with.

template <typename Value>
Value Median(std::vector<Value> values) {
  const auto middle = values.begin() + static_cast<std::ptrdiff_t>(values.size() / 2);
  std::nth_element(values.begin(), middle, values.end());
  return *middle;
}

std::string KeyOf(const std::string& description, const std::vector<at::Tensor>& inputs, bool need_gradient) {
  std::string key = absl::StrCat(description, need_gradient ? "|g" : "|");
  for (const at::Tensor& input : inputs) {
    absl::StrAppend(&key, "|", c10::toString(input.scalar_type()));
    for (const int64_t size : input.sizes()) absl::StrAppend(&key, ",", size);
    for (const int64_t dim : OrderOf(input.sizes(), input.strides())) absl::StrAppend(&key, "/", dim);
  }
  return key;
}

// How long the device takes for each of two graphs, one after the other.
std::pair<int64_t, int64_t> ReplayNanos(at::cuda::CUDAGraph& first, at::cuda::CUDAGraph& second) {
  at::cuda::CUDAEvent begin(cudaEventDefault), middle(cudaEventDefault), end(cudaEventDefault);
  begin.record();
  first.replay();
  middle.record();
  second.replay();
  end.record();
  end.synchronize();
  const auto nanos = [](float millis) { return static_cast<int64_t>(static_cast<double>(millis) * 1e6); };
  return {nanos(begin.elapsed_time(middle)), nanos(middle.elapsed_time(end))};
}

// The gradients of inputs are made anew, as for a micro-batch; those of parameters are added up.
void RunBackward(const std::vector<at::Tensor>& inputs, const std::vector<at::Tensor>& outputs) {
  for (const at::Tensor& input : inputs) input.mutable_grad().reset();
  std::vector<at::Tensor> roots, gradients;
  for (const at::Tensor& output : outputs) {
    if (!output.requires_grad()) continue;
    roots.push_back(output);
    gradients.push_back(at::ones_like(output));
  }
  if (!roots.empty()) torch::autograd::backward(roots, gradients);
}

}  // namespace

void AddCost(const LayerCost& cost, int64_t samples, v1::LayerInfo& layer) {
  layer.set_forward_nanos(layer.forward_nanos() + cost.forward_nanos);
  layer.set_backward_nanos(layer.backward_nanos() + cost.backward_nanos);
  layer.set_activation_bytes_per_sample(layer.activation_bytes_per_sample() + cost.activation_bytes / samples);
}

LayerProfiler::LayerProfiler(c10::Device device, bool training, int layers)
    : device_(device), training_(training), speed_(device), layers_left_(layers), time_left_(kTotalTime) {}

absl::StatusOr<LayerCost> LayerProfiler::Measure(const std::string& description, const std::vector<at::Tensor>& inputs,
                                                 bool input_needs_gradient, const LayerWork& work,
                                                 absl::FunctionRef<absl::StatusOr<ModelLayer>()> build) {
  const absl::Duration share = time_left_ / std::max(1, layers_left_--);
  const std::string key = KeyOf(description, inputs, input_needs_gradient);
  if (const auto known = known_.find(key); known != known_.end()) return known->second;
  std::optional<LayerCost> estimate;
  GPIPE_RETURN_IF_ERROR(CatchTorch([&] {
    estimate = EstimateIfLong(work);
    return absl::OkStatus();
  }));
  if (estimate) return known_[key] = *estimate;
  GPIPE_ASSIGN_OR_RETURN(const ModelLayer layer, build());
  return CatchTorch([&]() -> absl::StatusOr<LayerCost> {
    torch::autograd::AutoGradMode with_grad(training_);
    const absl::Time begin = absl::Now();
    const LayerCost cost = MeasureNow(layer, RandomInputs(inputs, input_needs_gradient), share);
    time_left_ -= absl::Now() - begin;
    return known_[key] = cost;
  });
}

// A backward does twice the work: for the inputs, and for the weights.
LayerCost LayerProfiler::Estimate(const LayerWork& work) {
  const absl::Duration forward = absl::Seconds(speed_.SecondsFor(work));
  const absl::Duration backward = training_ ? 2 * forward : absl::ZeroDuration();
  return LayerCost{absl::ToInt64Nanoseconds(forward), absl::ToInt64Nanoseconds(backward),
                   static_cast<int64_t>(work.made_bytes)};
}

std::optional<LayerCost> LayerProfiler::EstimateIfLong(const LayerWork& work) {
  if (work.flops + work.bytes == 0) return std::nullopt;
  const LayerCost cost = Estimate(work);
  const bool is_long = absl::Nanoseconds(cost.forward_nanos + cost.backward_nanos) >= kLongestRun;
  return is_long ? std::optional(cost) : std::nullopt;
}

LayerCost LayerProfiler::MeasureNow(const ModelLayer& layer, const std::vector<at::Tensor>& inputs,
                                    absl::Duration limit) const {
  const Run first = RunOnce(layer, inputs);  // Warms up caches, and on CUDA loads the kernels.
  if (first.forward + first.backward > kLongWarmUp) {
    return {absl::ToInt64Nanoseconds(first.forward), absl::ToInt64Nanoseconds(first.backward), first.bytes};
  }
  if (device_.is_cuda()) {
    if (auto captured = MeasureCaptured(layer, inputs, limit, first); captured.ok()) return *std::move(captured);
  }
  const absl::Time begin = absl::Now();
  std::vector<absl::Duration> forward, backward;
  int64_t bytes = 0;
  while (forward.size() < kMostRuns) {
    const absl::Duration used = absl::Now() - begin;
    if (!forward.empty() && (used > limit || (forward.size() >= kEnoughRuns && used > kEnoughTime))) break;
    const Run run = RunOnce(layer, inputs);
    forward.push_back(run.forward);
    backward.push_back(run.backward);
    bytes = run.bytes;
  }
  return {absl::ToInt64Nanoseconds(Median(forward)), absl::ToInt64Nanoseconds(Median(backward)), bytes};
}

absl::StatusOr<LayerCost> LayerProfiler::MeasureCaptured(const ModelLayer& layer, const std::vector<at::Tensor>& inputs,
                                                         absl::Duration limit, const Run& warm_up) const {
  const size_t repeats = warm_up.forward + warm_up.backward < kShortRun ? kRepeats : 1;
  GraphPool pool(device_);
  at::cuda::CUDAGraph forward, backward;
  std::vector<std::vector<at::Tensor>> outputs(repeats);
  GPIPE_RETURN_IF_ERROR(pool.Record(forward, [&] {
    for (auto& made : outputs) made = layer.layer->Forward({.training = training_, .recomputing = true}, inputs);
    return absl::OkStatus();
  }));
  GPIPE_RETURN_IF_ERROR(pool.Record(backward, [&] {
    for (auto& made : outputs) {
      if (training_) RunBackward(inputs, std::exchange(made, {}));
    }
    return absl::OkStatus();
  }));
  std::vector<int64_t> forward_nanos, backward_nanos;
  const absl::Time begin = absl::Now();
  while (forward_nanos.size() < kMostRuns) {
    const absl::Duration used = absl::Now() - begin;
    if (forward_nanos.size() >= kEnoughRuns && (used > limit || used > kEnoughTime)) break;
    const auto [of_forward, of_backward] = ReplayNanos(forward, backward);
    forward_nanos.push_back(of_forward / static_cast<int64_t>(repeats));
    backward_nanos.push_back(of_backward / static_cast<int64_t>(repeats));
  }
  return LayerCost{Median(forward_nanos), Median(backward_nanos), warm_up.bytes};
}

LayerProfiler::Run LayerProfiler::RunOnce(const ModelLayer& layer, const std::vector<at::Tensor>& inputs) const {
  Run run;
  std::vector<at::Tensor> outputs;
  {
    const MemoryMeter meter(device_);
    SynchronizeDevice(device_);
    const absl::Time begin = absl::Now();
    // A recomputing forward costs the same and leaves running statistics alone.
    outputs = layer.layer->Forward({.training = training_, .recomputing = true}, inputs);
    SynchronizeDevice(device_);
    run.forward = absl::Now() - begin;
    run.bytes = meter.Allocated();
  }
  const absl::Time begin = absl::Now();
  if (training_) RunBackward(inputs, outputs);
  SynchronizeDevice(device_);
  run.backward = absl::Now() - begin;
  return run;
}

std::vector<at::Tensor> LayerProfiler::RandomInputs(const std::vector<at::Tensor>& shapes, bool need_gradient) const {
  std::vector<at::Tensor> inputs;
  for (const at::Tensor& shape : shapes) {
    at::Tensor input = at::empty_strided(shape.sizes(), shape.strides(), shape.options().device(device_));
    // Integers are indices; zero is one in every table.
    if (torch::autograd::isDifferentiableType(input.scalar_type()) && !c10::isFloat8Type(input.scalar_type())) {
      input.uniform_(0, 1, MakeGenerator(device_, kSeed));
    } else {
      input.zero_();
    }
    if (torch::autograd::isDifferentiableType(input.scalar_type())) input.set_requires_grad(need_gradient && training_);
    inputs.push_back(std::move(input));
  }
  return inputs;
}

}  // namespace gpipe::worker
