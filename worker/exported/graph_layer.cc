#include "worker/exported/graph_layer.h"

#include <torch/csrc/autograd/grad_mode.h>

#include <algorithm>
#include <set>
#include <utility>

#include "common/exported/value_names.h"
#include "common/status_macros.h"
#include "worker/exported/exported_strides.h"
#include "worker/exported/input_layout.h"

namespace gpipe::worker {
namespace {

using exported::Input;
using exported::InputKind;

// Those of the program's own inputs that the nodes use, or that leave as they are.
std::vector<const Input*> UsedInputs(const exported::Program& program, const GraphLayer::Part& part) {
  std::set<std::string> used(part.leaving.begin(), part.leaving.end());
  for (const size_t position : part.nodes) {
    const std::vector<std::string> names = exported::ValuesReadBy(program.graph.nodes[position]);
    used.insert(names.begin(), names.end());
  }
  std::vector<const Input*> inputs;
  for (const Input& input : program.inputs) {
    if (input.kind != InputKind::kUserInput && used.contains(input.value)) inputs.push_back(&input);
  }
  return inputs;
}

// Of what enters only the model's inputs are written to by these nodes: other memory is written to where it is made.
std::vector<size_t> WrittenInputs(const exported::Program& program, const GraphLayer::Part& part) {
  std::vector<size_t> positions;
  for (const exported::UserInput& input : program.user_inputs) {
    const auto found = std::find(part.entering.begin(), part.entering.end(), input.value);
    if (found == part.entering.end() || !part.written.contains(input.value)) continue;
    positions.push_back(static_cast<size_t>(found - part.entering.begin()));
  }
  return positions;
}

std::map<size_t, DimensionOrder> LayoutsOf(const exported::Program& program, const std::vector<std::string>& entering) {
  const std::map<std::string, DimensionOrder> known = InputLayouts(program);
  std::map<size_t, DimensionOrder> layouts;
  for (size_t i = 0; i < entering.size(); ++i) {
    if (const auto found = known.find(entering[i]); found != known.end()) layouts.emplace(i, found->second);
  }
  return layouts;
}

std::vector<size_t> WrittenState(const GraphLayer::Part& part) {
  std::vector<size_t> positions;
  for (size_t i = 0; i < part.leaving.size(); ++i) {
    if (part.written_state.contains(part.leaving[i])) positions.push_back(i);
  }
  return positions;
}

void CopyAt(const std::vector<size_t>& positions, std::vector<at::Tensor>& tensors) {
  for (const size_t position : positions) tensors[position] = tensors[position].clone();
}

exported::ArgumentList AsArguments(const std::vector<std::string>& names) {
  exported::ArgumentList arguments;
  for (const std::string& name : names) arguments.push_back({exported::ValueName{name}});
  return arguments;
}

}  // namespace

absl::StatusOr<std::unique_ptr<GraphLayer>> GraphLayer::Create(const Archive& archive, const Part& part,
                                                               const CompileOptions& options, TensorPool* pool,
                                                               InitialValues values) {
  const exported::Program& program = archive.program();
  const std::vector<const Input*> inputs = UsedInputs(program, part);
  GraphCode::Part code{{}, part.entering, AsArguments(part.leaving), program.graph.values};
  const std::vector<uint64_t> places = PlacesOf(program.graph, 0);
  for (const size_t position : part.nodes) code.nodes.emplace_back(places[position], &program.graph.nodes[position]);
  for (const Input* input : inputs) code.entering.push_back(input->value);

  auto layer = std::make_unique<GraphLayer>();
  const CompileOptions compile{options.device,
                               part.deferred_batch_norm && !archive.is_evaluation() ? &layer->deferred_ : nullptr,
                               archive.is_evaluation(), AnySizes(program)};
  GPIPE_ASSIGN_OR_RETURN(GraphCode compiled, GraphCode::Compile(code, compile));
  layer->code_ = std::make_unique<GraphCode>(std::move(compiled));
  layer->copied_in_ = WrittenInputs(program, part);
  layer->copied_out_ = WrittenState(part);
  layer->layouts_ = LayoutsOf(program, part.entering);
  TensorPool own;
  const Origin origin{archive, options.device, pool == nullptr ? own : *pool, values};
  GPIPE_RETURN_IF_ERROR(layer->Bind(origin, inputs, part.written));
  for (const std::string& name : part.state) GPIPE_RETURN_IF_ERROR(layer->BindState(origin, name).status());
  return layer;
}

absl::Status GraphLayer::Bind(const Origin& origin, const std::vector<const Input*>& inputs,
                              const std::set<std::string>& written) {
  for (const Input* input : inputs) {
    if (written.contains(input->value)) {
      (input->kind == InputKind::kParameter ? written_parameters_ : written_buffers_).push_back(bound_.size());
    }
    if (input->kind == InputKind::kConstant) {
      bound_.emplace_back();  // torch.export has put its value where it is used.
      continue;
    }
    GPIPE_ASSIGN_OR_RETURN(at::Tensor tensor, BindOne(origin, *input));
    bound_.emplace_back(std::move(tensor));
  }
  return absl::OkStatus();
}

absl::StatusOr<at::Tensor> GraphLayer::BindOne(const Origin& origin, const Input& input) {
  const std::string& name = origin.archive.CanonicalName(input.name);
  if (IsInState(input)) return BindState(origin, name);
  at::Tensor& tensor = origin.pool[origin.archive.KeyOf(name)];
  if (!tensor.defined()) {
    GPIPE_ASSIGN_OR_RETURN(
        tensor, origin.device.is_meta() ? origin.archive.Describe(name) : origin.archive.Load(name, origin.device));
  }
  return tensor;
}

absl::StatusOr<at::Tensor> GraphLayer::BindState(const Origin& origin, const std::string& name) {
  const Archive& archive = origin.archive;
  at::Tensor& tensor = origin.pool[archive.KeyOf(name)];
  if (!tensor.defined()) {
    GPIPE_ASSIGN_OR_RETURN(tensor, origin.device.is_meta()                   ? archive.Describe(name)
                                   : origin.values == InitialValues::kFollow ? archive.Allocate(name, origin.device)
                                                                             : archive.Load(name, origin.device));
  }
  const auto same = [&](const LayerTensor& entry) { return entry.name == name; };
  if (std::any_of(tensors().begin(), tensors().end(), same)) return tensor;  // Tied.
  return archive.IsTrainable(name) ? AddParameter(name, tensor) : AddBuffer(name, tensor);
}

GraphLayer::Copies GraphLayer::CopyOf(const std::vector<size_t>& positions) const {
  Copies copies;
  for (const size_t position : positions) {
    copies.emplace(Live(position).unsafeGetTensorImpl(), Live(position).detach().clone());
  }
  return copies;
}

// Plain PyTorch runs forward once over the whole mini-batch, and writes once. So every micro-batch, the first time and
// when it is repeated, begins with what the mini-batch began with; and it has a copy of its own, through which its
// gradients pass, as one that others write to could not go backward.
GraphLayer::Copies GraphLayer::ParameterCopies(const LayerContext& context) {
  Copies copies;
  if (written_parameters_.empty()) return copies;
  Copies& start = mini_batches_[context.step].parameters;
  if (start.empty()) start = CopyOf(written_parameters_);
  for (const size_t position : written_parameters_) {
    const c10::TensorImpl* live = Live(position).unsafeGetTensorImpl();
    const at::Tensor copy = Live(position).clone();
    const torch::autograd::AutoGradMode no_grad(false);
    copies.emplace(live, copy.copy_(start.at(live)));
  }
  return copies;
}

// Micro-batches may write to different places (rows of an embedding): what one has left alone another may have written.
void GraphLayer::TakeWrites(const LayerContext& context, const Copies& copies) const {
  if (written_parameters_.empty()) return;
  const torch::autograd::AutoGradMode no_grad(false);
  const Copies& starts = mini_batches_.at(context.step).parameters;
  for (const size_t position : written_parameters_) {
    const at::Tensor& live = Live(position);
    const at::Tensor &written = copies.at(live.unsafeGetTensorImpl()), &start = starts.at(live.unsafeGetTensorImpl());
    // No forward keeps the live one: each has a copy of its own. So autograd need not hear of it.
    live.variable_data().copy_(at::where(written.ne(start), written, live));
  }
}

// A model may read a buffer that it writes to, so a forward is repeated from what the first one saw, and on copies.
GraphLayer::Copies GraphLayer::BufferCopies(const LayerContext& context) {
  if (written_buffers_.empty()) return {};
  if (context.recomputing) {
    auto first = mini_batches_[context.step].buffers.extract(context.micro_batch);
    return first.empty() ? CopyOf(written_buffers_) : std::move(first.mapped());
  }
  if (!c10::GradMode::is_enabled()) {
    mini_batches_[context.step].buffers[context.micro_batch] = CopyOf(written_buffers_);
  }
  return {};
}

std::vector<c10::IValue> GraphLayer::BoundTo(const Copies& copies) const {
  std::vector<c10::IValue> bound = bound_;
  for (const std::vector<size_t>* positions : {&written_buffers_, &written_parameters_}) {
    for (const size_t position : *positions) {
      const auto copy = copies.find(Live(position).unsafeGetTensorImpl());
      if (copy != copies.end()) bound[position] = copy->second;
    }
  }
  return bound;
}

std::vector<at::Tensor> GraphLayer::Forward(const LayerContext& context, std::vector<at::Tensor> inputs) {
  CopyAt(copied_in_, inputs);
  for (const auto& [position, order] : layouts_) inputs[position] = InOrder(inputs[position], order);
  std::vector<c10::IValue> values(std::make_move_iterator(inputs.begin()), std::make_move_iterator(inputs.end()));
  // Evaluation writes to copies, too: it leaves the model as it was.
  Copies copies = context.training ? ParameterCopies(context) : CopyOf(written_parameters_);
  copies.merge(context.training ? BufferCopies(context) : CopyOf(written_buffers_));
  const std::vector<c10::IValue> bound = BoundTo(copies);
  values.insert(values.end(), bound.begin(), bound.end());
  std::vector<at::Tensor> results;
  for (c10::IValue& result : code_->Run(context, std::move(values))) results.push_back(std::move(result).toTensor());
  if (context.training && !context.recomputing) TakeWrites(context, copies);
  CopyAt(copied_out_, results);
  return results;
}

}  // namespace gpipe::worker
