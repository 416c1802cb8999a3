#include "worker/model/layer_run.h"

#include <ATen/ATen.h>
#include <torch/csrc/autograd/grad_mode.h>

#include <algorithm>
#include <utility>

#include "absl/time/clock.h"
#include "worker/model/device_speed.h"
#include "worker/model/layer_backward.h"
#include "worker/model/memory_meter.h"

namespace gpipe::worker {
namespace {

// Leaves, with the gradients of the inputs themselves.
std::vector<at::Tensor> CopiesOf(const std::vector<at::Tensor>& inputs) {
  std::vector<at::Tensor> copies;
  for (const at::Tensor& input : inputs) {
    copies.push_back(input.detach().clone().set_requires_grad(input.requires_grad()));
    copies.back().mutable_grad() = input.grad();
  }
  return copies;
}

// Where the values of a run lie, and what of that the graph holds once the run has let go of them.
class ValueMemories {
 public:
  // What the layer reads; who calls keeps it, each value once.
  explicit ValueMemories(const std::vector<at::Tensor>& read) : read_(read) {
    for (const at::Tensor& value : read) Add(value, memory_.read);
  }

  // Before the run lets go of it.
  void AddMade(const std::vector<at::Tensor>& made) {
    for (const at::Tensor& value : made) Add(value, memory_.made);
  }

  // After. `allocated` is what the run has allocated and not freed.
  LayerMemory Describe(int64_t allocated) {
    memory_.kept_bytes = allocated;
    for (size_t i = 0; i < read_.size(); ++i) {
      memory_.read[i].kept = read_[i].use_count() > 1 || read_[i].storage().use_count() > 1;
    }
    for (size_t i = 0; i < memory_.made.size(); ++i) {
      LayerMemory::Value& value = memory_.made[i];
      if (value.within >= 0) continue;  // Then it is the outer value that is kept, or not.
      value.kept = !storages_[read_.size() + i].expired();
      if (value.kept) memory_.kept_bytes -= value.bytes;
    }
    memory_.kept_bytes = std::max<int64_t>(memory_.kept_bytes, 0);
    return std::move(memory_);
  }

 private:
  using Storage = c10::weak_intrusive_ptr<c10::StorageImpl>;

  void Add(const at::Tensor& value, std::vector<LayerMemory::Value>& values) {
    const Storage storage = value.storage().getWeakStorageImpl();
    const auto outer = std::find(storages_.begin(), storages_.end(), storage);
    LayerMemory::Value& added = values.emplace_back();
    if (outer != storages_.end()) added.within = static_cast<int>(outer - storages_.begin());
    if (outer == storages_.end()) added.bytes = static_cast<int64_t>(value.storage().nbytes());
    storages_.push_back(storage);
  }

  const std::vector<at::Tensor>& read_;
  LayerMemory memory_;
  std::vector<Storage> storages_;  // Of what is read, and then of what is made.
};

// Calls `pass`; how long the device needs for it.
template <typename Pass>
absl::Duration TimeOf(c10::Device device, Pass pass) {
  SynchronizeDevice(device);
  const absl::Time begin = absl::Now();
  pass();
  SynchronizeDevice(device);
  return absl::Now() - begin;
}

}  // namespace

LayerRun RunLayer(const ModelLayer& layer, const std::vector<at::Tensor>& inputs, c10::Device device) {
  LayerRun run;
  const std::vector<at::Tensor> read = WithGradientsEnded(CopiesOf(inputs));
  ValueMemories values(read);
  MemoryMeter meter(device);
  meter.ResetPeak();
  std::vector<at::Tensor> outputs;
  // A recomputing forward costs the same and leaves running statistics alone.
  const LayerContext context{.training = at::GradMode::is_enabled(), .recomputing = true};
  run.forward = TimeOf(device, [&] { outputs = layer.layer->Forward(context, read); });
  const LayerBackward backward(outputs);
  values.AddMade(outputs);
  outputs.clear();
  const int64_t kept = meter.Allocated(), forward_peak = meter.Peak();
  run.memory = values.Describe(kept);
  meter.ResetPeak();
  const std::vector<at::Tensor> gradients = backward.MakeGradients();
  run.backward = TimeOf(device, [&] { backward.Run(gradients); });
  run.memory.working_bytes = std::max(forward_peak, meter.Peak()) - kept;
  return run;
}

void PrepareGradients(const ModelLayer& layer) {
  for (const LayerTensor& entry : layer.layer->tensors()) {
    if (entry.tensor.requires_grad()) entry.tensor.mutable_grad() = at::zeros_like(entry.tensor);
  }
}

}  // namespace gpipe::worker
