#include "tests/unit/worker/cut_program.h"

#include <ATen/ATen.h>
#include <torch/csrc/autograd/autograd.h>

#include <utility>

#include "common/status_macros.h"

namespace gpipe::worker {
namespace {

void AddTo(at::Tensor& sum, const at::Tensor& gradient) {
  if (gradient.defined()) sum = sum.defined() ? sum + gradient : gradient;
}

absl::StatusOr<std::vector<std::string>> OutputValues(const exported::Program& program) {
  std::vector<std::string> names;
  for (const exported::UserOutput& output : program.user_outputs) {
    const auto* value = std::get_if<exported::ValueName>(&output.value.value);
    if (value == nullptr) return absl::UnimplementedError("the output '" + output.name + "' is no tensor");
    names.push_back(value->name);
  }
  return names;
}

}  // namespace

absl::StatusOr<std::unique_ptr<CutProgram>> CutProgram::Create(const Archive& archive, const Units& units,
                                                               std::vector<size_t> cuts) {
  auto program = std::unique_ptr<CutProgram>(new CutProgram(archive.program()));
  GPIPE_ASSIGN_OR_RETURN(const std::vector<std::string> outputs, OutputValues(archive.program()));
  cuts.insert(cuts.begin(), 0);
  cuts.push_back(archive.program().graph.nodes.size());
  for (size_t i = 0; i + 1 < cuts.size(); ++i) {
    Stage& stage = program->stages_.emplace_back();
    stage.part = units.PartOf(cuts[i], cuts[i + 1], outputs);
    GPIPE_ASSIGN_OR_RETURN(stage.layer, GraphLayer::Create(archive, stage.part, {}));
    for (const LayerTensor& entry : stage.layer->tensors()) entry.tensor.set_requires_grad(entry.parameter);
  }
  return program;
}

std::vector<at::Tensor> CutProgram::Forward(const std::vector<at::Tensor>& inputs, LayerContext context) {
  values_.clear();
  for (size_t i = 0; i < inputs.size(); ++i) values_[program_.user_inputs[i].value] = inputs[i];
  for (Stage& stage : stages_) RunForward(stage, context);
  return stages_.back().results;
}

void CutProgram::RunForward(Stage& stage, LayerContext context) {
  stage.leaves.clear();
  for (const std::string& name : stage.part.entering) {
    at::Tensor leaf = values_.at(name).detach().clone();  // Another process has its own memory.
    if (values_.at(name).requires_grad()) leaf.set_requires_grad(true);
    stage.leaves.push_back(leaf);
  }
  if (recomputes_ && context.training) {
    const at::NoGradGuard no_gradients;
    stage.layer->Forward(context, stage.leaves);
    context.recomputing = true;
  }
  stage.results = stage.layer->Forward(context, stage.leaves);
  for (size_t i = 0; i < stage.results.size(); ++i) values_[stage.part.leaving[i]] = stage.results[i];
}

void CutProgram::Backward(const std::vector<at::Tensor>& gradients) {
  sums_.clear();
  RunBackward(stages_.back(), gradients);
  for (auto stage = stages_.rbegin() + 1; stage != stages_.rend(); ++stage) {
    std::vector<at::Tensor> of_results;
    for (const std::string& name : stage->part.leaving) of_results.push_back(sums_[name]);
    RunBackward(*stage, of_results);
  }
}

void CutProgram::RunBackward(Stage& stage, const std::vector<at::Tensor>& gradients) {
  torch::autograd::variable_list roots, root_gradients;
  for (size_t i = 0; i < stage.results.size(); ++i) {
    if (!gradients[i].defined() || !stage.results[i].requires_grad()) continue;
    roots.push_back(stage.results[i]);
    root_gradients.push_back(gradients[i]);
  }
  if (!roots.empty()) torch::autograd::backward(roots, root_gradients);
  for (size_t i = 0; i < stage.leaves.size(); ++i) AddTo(sums_[stage.part.entering[i]], stage.leaves[i].grad());
}

at::Tensor CutProgram::GradientOf(const std::string& name) const {
  at::Tensor sum;
  for (const at::Tensor& copy : CopiesOf(name)) AddTo(sum, copy.grad());
  return sum;
}

void CutProgram::Update(double lr) {
  std::map<std::string, at::Tensor> gradients;  // All of them before any is cleared.
  for (const LayerTensor& entry : Tensors()) gradients[entry.name] = GradientOf(entry.name);
  const at::NoGradGuard no_gradients;
  for (const LayerTensor& entry : Tensors()) {
    const at::Tensor& gradient = gradients[entry.name];
    if (gradient.defined()) entry.tensor.add_(gradient, -lr);
    entry.tensor.mutable_grad().reset();
  }
}

std::vector<at::Tensor> CutProgram::CopiesOf(const std::string& name) const {
  std::vector<at::Tensor> copies;
  for (const LayerTensor& entry : Tensors()) {
    if (entry.name == name) copies.push_back(entry.tensor);
  }
  return copies;
}

std::vector<LayerTensor> CutProgram::Tensors() const {
  std::vector<LayerTensor> tensors;
  for (const Stage& stage : stages_) {
    tensors.insert(tensors.end(), stage.layer->tensors().begin(), stage.layer->tensors().end());
  }
  return tensors;
}

}  // namespace gpipe::worker
