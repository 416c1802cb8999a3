#include "worker/exported/graph_layer.h"

#include <algorithm>
#include <set>
#include <utility>

#include "common/exported/value_names.h"
#include "common/status_macros.h"

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
  GraphCode::Part code{{}, part.entering, AsArguments(part.leaving)};
  for (const size_t position : part.nodes) code.nodes.emplace_back(position, &program.graph.nodes[position]);
  for (const Input* input : inputs) code.entering.push_back(input->value);

  auto layer = std::make_unique<GraphLayer>();
  const CompileOptions compile{options.device,
                               part.deferred_batch_norm && !archive.is_evaluation() ? &layer->deferred_ : nullptr,
                               archive.is_evaluation()};
  GPIPE_ASSIGN_OR_RETURN(GraphCode compiled, GraphCode::Compile(code, compile));
  layer->code_ = std::make_unique<GraphCode>(std::move(compiled));
  layer->copied_in_ = WrittenInputs(program, part);
  layer->copied_out_ = WrittenState(part);
  TensorPool own;
  GPIPE_RETURN_IF_ERROR(
      layer->Bind({archive, options.device, pool == nullptr ? own : *pool, values}, inputs, part.written));
  return layer;
}

absl::Status GraphLayer::Bind(const Origin& origin, const std::vector<const Input*>& inputs,
                              const std::set<std::string>& written) {
  for (const Input* input : inputs) {
    if (written.contains(input->value)) written_.push_back(bound_.size());
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
  const Archive& archive = origin.archive;
  const std::string& name = archive.CanonicalName(input.name);
  const bool in_state = input.kind == InputKind::kParameter || (input.kind == InputKind::kBuffer && input.persistent);
  at::Tensor& tensor = origin.pool[archive.KeyOf(name)];
  if (!tensor.defined()) {
    GPIPE_ASSIGN_OR_RETURN(tensor, origin.device.is_meta() ? archive.Describe(name)
                                   : in_state && origin.values == InitialValues::kFollow
                                       ? archive.Allocate(name, origin.device)
                                       : archive.Load(name, origin.device));
  }
  const auto same = [&](const LayerTensor& entry) { return entry.name == name; };
  if (std::any_of(tensors().begin(), tensors().end(), same)) return tensor;  // Tied.
  if (input.kind == InputKind::kParameter && archive.IsTrainable(name)) return AddParameter(name, tensor);
  return in_state ? AddBuffer(name, tensor) : tensor;
}

GraphLayer::Kept GraphLayer::CopyWritten() const {
  Kept copies;
  for (const size_t position : written_) {
    const at::Tensor& buffer = bound_[position].toTensor();
    copies.emplace(buffer.unsafeGetTensorImpl(), buffer.detach().clone());
  }
  return copies;
}

// A model may read a buffer that it writes to, so a forward is repeated from what the first one saw, and on copies.
// Evaluation writes to copies, too: it leaves the model as it was.
std::vector<c10::IValue> GraphLayer::BoundFor(const LayerContext& context) {
  if (!context.training) return BoundTo(CopyWritten());
  if (context.recomputing) {
    auto first = kept_.extract(context.micro_batch);
    return BoundTo(first.empty() ? CopyWritten() : std::move(first.mapped()));
  }
  if (!c10::GradMode::is_enabled() && !written_.empty()) kept_[context.micro_batch] = CopyWritten();
  return bound_;
}

std::vector<c10::IValue> GraphLayer::BoundTo(const Kept& copies) const {
  std::vector<c10::IValue> bound = bound_;
  for (const size_t position : written_) bound[position] = copies.at(bound[position].toTensor().unsafeGetTensorImpl());
  return bound;
}

std::vector<at::Tensor> GraphLayer::Forward(const LayerContext& context, std::vector<at::Tensor> inputs) {
  CopyAt(copied_in_, inputs);
  std::vector<c10::IValue> values(std::make_move_iterator(inputs.begin()), std::make_move_iterator(inputs.end()));
  const std::vector<c10::IValue> bound = BoundFor(context);
  values.insert(values.end(), bound.begin(), bound.end());
  std::vector<at::Tensor> results;
  for (c10::IValue& result : code_->Run(context, std::move(values))) results.push_back(std::move(result).toTensor());
  CopyAt(copied_out_, results);
  return results;
}

}  // namespace gpipe::worker
