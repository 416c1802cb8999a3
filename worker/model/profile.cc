#include "worker/model/profile.h"

#include <ATen/ATen.h>
#include <ATen/cuda/CUDAContextLight.h>
#include <ATen/cuda/CUDAEvent.h>
#include <ATen/cuda/CUDAGraph.h>
#include <torch/csrc/autograd/grad_mode.h>
#include <torch/csrc/autograd/variable.h>

#include <algorithm>
#include <iterator>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "common/status_macros.h"
#include "worker/model/graph_pool.h"
#include "worker/model/layer_backward.h"
#include "worker/model/layer_run.h"
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
// Launching a graph takes a GPU as long as some small kernels: so what is short is repeated in it, up to this time, and
// to these bytes, as all repetitions are in memory at once.
constexpr int64_t kMostRepeats = 32;
constexpr absl::Duration kRepeatedTime = absl::Milliseconds(4);
constexpr int64_t kRepeatedBytes = int64_t{1} << 30;
constexpr uint64_t kSeed = 1;  // Of the values to measure with.

template <typename Value>
Value Median(std::vector<Value> values) {
  const auto middle = values.begin() + static_cast<std::ptrdiff_t>(values.size() / 2);
  std::nth_element(values.begin(), middle, values.end());
  return *middle;
}

std::string KeyOf(const std::string& description, const std::vector<ReadValue>& inputs) {
  std::string key = description;
  for (const auto& [shape, needs_gradient, summed] : inputs) {
    const char* gradient = !needs_gradient ? "" : summed ? "s" : "g";
    absl::StrAppend(&key, "|", c10::toString(shape.scalar_type()), gradient);
    for (const int64_t size : shape.sizes()) absl::StrAppend(&key, ",", size);
    for (const int64_t dim : OrderOf(shape.sizes(), shape.strides())) absl::StrAppend(&key, "/", dim);
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

// What cuBLAS keeps for its products: for each of the two threads that make them, of which one goes forward and one
// back. The first product of a process allocates it, which is why runs do not measure it.
int64_t LibraryBytes(c10::Device device) {
  constexpr int kThreads = 2;
  return device.is_cuda() ? kThreads * static_cast<int64_t>(at::cuda::getChosenWorkspaceSize()) : 0;
}

int64_t RepeatsOf(const LayerRun& run) {
  int64_t bytes = run.memory.kept_bytes;
  for (const LayerMemory::Value& made : run.memory.made) bytes += made.kept ? made.bytes : 0;
  const int64_t fitting = kRepeatedBytes / std::max<int64_t>(bytes, 1);
  const int64_t quick = kRepeatedTime / std::max(run.forward + run.backward, absl::Microseconds(1));
  return std::clamp<int64_t>(std::min(fitting, quick), 1, kMostRepeats);
}

LayerCost CostOf(const LayerRun& run, std::vector<absl::Duration> forward, std::vector<absl::Duration> backward) {
  return {absl::ToInt64Nanoseconds(Median(std::move(forward))), absl::ToInt64Nanoseconds(Median(std::move(backward))),
          run.memory};
}

// Of what is read only what is kept says anything new.
void AddValues(const LayerMemory& memory, int64_t samples, const ValueNames& names, v1::LayerInfo& layer) {
  std::vector<std::string> in_order = names.read;
  in_order.insert(in_order.end(), names.made.begin(), names.made.end());
  const auto add = [&](const LayerMemory::Value& value, const std::string& name) {
    v1::ValueMemory& added = *layer.add_value_memory();
    added.set_name(name);
    added.set_kept(value.kept);
    added.set_bytes_per_sample(value.bytes / samples);
    if (value.within >= 0) added.set_within(in_order[value.within]);
  };
  for (size_t i = 0; i < memory.read.size(); ++i) {
    if (memory.read[i].kept) add(memory.read[i], names.read[i]);
  }
  for (size_t i = 0; i < memory.made.size(); ++i) add(memory.made[i], names.made[i]);
}

// What comes behind the layer has let go of this when the layer goes back, and has none of it when that goes forward:
// its own memory, and that of values which the layer makes and does not keep itself.
int64_t FreedBefore(const v1::LayerInfo& layer, const LayerMemory& behind, int64_t samples, const ValueNames& names) {
  int64_t bytes = behind.kept_bytes / samples;
  for (size_t i = 0; i < behind.read.size(); ++i) {
    const auto is_lent = [&](const v1::ValueMemory& value) { return value.name() == names.read[i] && !value.kept(); };
    const bool counts = behind.read[i].kept && std::ranges::any_of(layer.value_memory(), is_lent);
    bytes += counts ? behind.read[i].bytes / samples : 0;
  }
  return bytes;
}

}  // namespace

std::vector<std::set<std::string>> ReadLater(const std::vector<std::vector<std::string>>& reads) {
  std::vector<std::set<std::string>> result(reads.size());
  std::set<std::string> seen;
  for (size_t i = reads.size(); i-- > 0;) {
    std::ranges::set_intersection(std::set(reads[i].begin(), reads[i].end()), seen,
                                  std::inserter(result[i], result[i].end()));
    seen.insert(reads[i].begin(), reads[i].end());
  }
  return result;
}

void AddCost(const LayerCost& cost, int64_t samples, const ValueNames& names, v1::LayerInfo& layer) {
  layer.set_forward_nanos(layer.forward_nanos() + cost.forward_nanos);
  layer.set_backward_nanos(layer.backward_nanos() + cost.backward_nanos);
  layer.set_activation_bytes_per_sample(layer.activation_bytes_per_sample() + cost.memory.kept_bytes / samples);
  const int64_t before = layer.working_bytes_per_sample() - FreedBefore(layer, cost.memory, samples, names);
  layer.set_working_bytes_per_sample(std::max({int64_t{0}, before, cost.memory.working_bytes / samples}));
  AddValues(cost.memory, samples, names, layer);
}

LayerProfiler::LayerProfiler(c10::Device device, bool training, int layers)
    : device_(device), training_(training), speed_(device), layers_left_(layers), time_left_(kTotalTime) {}

absl::StatusOr<LayerCost> LayerProfiler::Measure(const std::string& description, const std::vector<ReadValue>& inputs,
                                                 const LayerWork& work,
                                                 absl::FunctionRef<absl::StatusOr<ModelLayer>()> build) {
  const absl::Duration share = time_left_ / std::max(1, layers_left_--);
  const std::string key = KeyOf(description, inputs);
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
    std::vector<at::Tensor> values;
    for (const ReadValue& input : inputs) values.push_back(RandomInput(input));
    const LayerCost cost = MeasureNow(layer, values, share);
    time_left_ -= absl::Now() - begin;
    return known_[key] = cost;
  });
}

// A backward does twice the work: for the inputs, and for the weights.
LayerCost LayerProfiler::Estimate(const LayerWork& work) {
  const absl::Duration forward = absl::Seconds(speed_.SecondsFor(work));
  const absl::Duration backward = training_ ? 2 * forward : absl::ZeroDuration();
  return LayerCost{absl::ToInt64Nanoseconds(forward),
                   absl::ToInt64Nanoseconds(backward),
                   {.kept_bytes = static_cast<int64_t>(work.made_bytes), .read = {}, .made = {}}};
}

std::optional<LayerCost> LayerProfiler::EstimateIfLong(const LayerWork& work) {
  if (work.flops + work.bytes == 0) return std::nullopt;
  const LayerCost cost = Estimate(work);
  const bool is_long = absl::Nanoseconds(cost.forward_nanos + cost.backward_nanos) >= kLongestRun;
  return is_long ? std::optional(cost) : std::nullopt;
}

LayerCost LayerProfiler::MeasureNow(const ModelLayer& layer, const std::vector<at::Tensor>& inputs,
                                    absl::Duration limit) const {
  if (training_) PrepareGradients(layer);
  LayerRun run = RunLayer(layer, inputs, device_);  // Warms up caches.
  if (device_.is_cuda()) {
    // Without what only the first run of a process does: kernels are loaded, and cuDNN compiles some, for a second.
    run = RunLayer(layer, inputs, device_);
    run.memory.working_bytes += LibraryBytes(device_);
  }
  if (run.forward + run.backward > kLongWarmUp) return CostOf(run, {run.forward}, {run.backward});
  if (device_.is_cuda()) {
    if (auto captured = MeasureCaptured(layer, inputs, limit, run); captured.ok()) return *std::move(captured);
  }
  const absl::Time begin = absl::Now();
  std::vector<absl::Duration> forward, backward;
  while (forward.size() < kMostRuns) {
    const absl::Duration used = absl::Now() - begin;
    if (!forward.empty() && (used > limit || (forward.size() >= kEnoughRuns && used > kEnoughTime))) break;
    run = RunLayer(layer, inputs, device_);
    forward.push_back(run.forward);
    backward.push_back(run.backward);
  }
  return CostOf(run, std::move(forward), std::move(backward));
}

absl::StatusOr<LayerCost> LayerProfiler::MeasureCaptured(const ModelLayer& layer, const std::vector<at::Tensor>& inputs,
                                                         absl::Duration limit, const LayerRun& warm_up) const {
  const int64_t repeats = RepeatsOf(warm_up);
  GraphPool pool(device_);
  at::cuda::CUDAGraph forward, backward;
  std::vector<LayerBackward> passes;
  GPIPE_RETURN_IF_ERROR(pool.Record(forward, [&] {
    const LayerContext context{.training = training_, .recomputing = true, .measured = true};
    for (int64_t i = 0; i < repeats; ++i) {
      passes.emplace_back(layer.layer->Forward(context, WithGradientsEnded(inputs)));
    }
    return absl::OkStatus();
  }));
  const std::vector<at::Tensor> gradients = passes.front().MakeGradients();
  GPIPE_RETURN_IF_ERROR(pool.Record(backward, [&] {
    for (LayerBackward& pass : passes) std::exchange(pass, LayerBackward({})).Run(gradients);
    return absl::OkStatus();
  }));
  std::vector<int64_t> forward_nanos, backward_nanos;
  const absl::Time begin = absl::Now();
  while (forward_nanos.size() < kMostRuns) {
    const absl::Duration used = absl::Now() - begin;
    if (forward_nanos.size() >= kEnoughRuns && (used > limit || used > kEnoughTime)) break;
    const auto [of_forward, of_backward] = ReplayNanos(forward, backward);
    forward_nanos.push_back(of_forward / repeats);
    backward_nanos.push_back(of_backward / repeats);
  }
  return LayerCost{Median(forward_nanos), Median(backward_nanos), warm_up.memory};
}

at::Tensor LayerProfiler::RandomInput(const ReadValue& value) const {
  const at::Tensor& shape = value.shape;
  at::Tensor input = at::empty_strided(shape.sizes(), shape.strides(), shape.options().device(device_));
  const bool differentiable = torch::autograd::isDifferentiableType(input.scalar_type());
  // Integers are indices; zero is one in every table.
  if (differentiable && !c10::isFloat8Type(input.scalar_type())) {
    input.uniform_(0, 1, MakeGenerator(device_, kSeed));
  } else {
    input.zero_();
  }
  if (!differentiable) return input;
  input.set_requires_grad(value.needs_gradient && training_);
  if (value.summed && input.requires_grad()) input.mutable_grad() = at::zeros_like(input);
  return input;
}

}  // namespace gpipe::worker
