#include "worker/model/segment.h"

#include <ATen/ATen.h>

#include <map>

#include "absl/strings/str_cat.h"
#include "common/status_macros.h"
#include "worker/torch_status.h"

namespace gpipe::worker {
namespace {

using Slots = std::map<std::string, size_t>;

absl::StatusOr<std::vector<size_t>> Find(const Slots& slots, const std::vector<std::string>& names) {
  std::vector<size_t> found;
  for (const std::string& name : names) {
    const auto slot = slots.find(name);
    if (slot == slots.end()) return absl::InternalError(absl::StrCat("no layer here makes the value '", name, "'"));
    found.push_back(slot->second);
  }
  return found;
}

}  // namespace

absl::StatusOr<std::vector<at::Tensor>> RunLayer(const ModelLayer& layer, const LayerContext& context,
                                                 std::vector<at::Tensor> inputs) {
  auto outputs = CatchTorch(
      [&]() -> absl::StatusOr<std::vector<at::Tensor>> { return layer.layer->Forward(context, std::move(inputs)); });
  if (outputs.ok()) return outputs;
  return absl::Status(outputs.status().code(),
                      absl::StrCat("layer ", layer.index, " (", layer.kind, "): ", outputs.status().message()));
}

absl::StatusOr<Segment> Segment::Create(std::vector<ModelLayer> layers, const std::vector<std::string>& entering,
                                        const std::vector<std::string>& leaving) {
  Segment segment;
  Slots slots;
  for (const std::string& name : entering) slots.emplace(name, slots.size());
  for (const ModelLayer& layer : layers) {
    Step step;
    GPIPE_ASSIGN_OR_RETURN(step.inputs, Find(slots, layer.inputs));
    for (const std::string& name : layer.outputs)
      step.outputs.push_back(slots.emplace(name, slots.size()).first->second);
    segment.steps_.push_back(std::move(step));
  }
  GPIPE_ASSIGN_OR_RETURN(segment.leaving_, Find(slots, leaving));
  segment.layers_ = std::move(layers);
  segment.slots_ = slots.size();
  segment.FindLastUses();
  return segment;
}

void Segment::FindLastUses() {
  constexpr size_t kNever = -1;
  std::vector<size_t> last(slots_, kNever);
  for (size_t i = 0; i < steps_.size(); ++i) {
    for (const size_t slot : steps_[i].inputs) last[slot] = i;
    for (const size_t slot : steps_[i].outputs) last[slot] = i;
  }
  for (const size_t slot : leaving_) last[slot] = kNever;
  for (size_t slot = 0; slot < slots_; ++slot) {
    if (last[slot] != kNever) steps_[last[slot]].dead.push_back(slot);
  }
}

absl::StatusOr<std::vector<at::Tensor>> Segment::Run(const LayerContext& context,
                                                     std::vector<at::Tensor> values) const {
  values.resize(slots_);
  for (size_t i = 0; i < steps_.size(); ++i) {
    const Step& step = steps_[i];
    std::vector<at::Tensor> inputs;
    for (const size_t slot : step.inputs) inputs.push_back(values[slot]);
    GPIPE_ASSIGN_OR_RETURN(std::vector<at::Tensor> outputs, RunLayer(layers_[i], context, std::move(inputs)));
    for (size_t k = 0; k < outputs.size(); ++k) values[step.outputs[k]] = std::move(outputs[k]);
    for (const size_t slot : step.dead) values[slot].reset();
  }
  std::vector<at::Tensor> result;
  for (const size_t slot : leaving_) result.push_back(values[slot]);
  return result;
}

void Segment::EndMiniBatch() const {
  for (const ModelLayer& layer : layers_) layer.layer->EndMiniBatch();
}

void Segment::ForgetMiniBatch(int64_t step) const {
  for (const ModelLayer& layer : layers_) layer.layer->ForgetMiniBatch(step);
}

}  // namespace gpipe::worker
