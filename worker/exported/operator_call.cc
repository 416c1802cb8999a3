#include "worker/exported/operator_call.h"

#include <ATen/ATen.h>

#include <algorithm>
#include <iterator>
#include <set>
#include <string_view>
#include <utility>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "common/status_macros.h"
#include "worker/exported/argument_source.h"
#include "worker/model/accumulating.h"
#include "worker/model/attention_gradient.h"
#include "worker/model/checks.h"
#include "worker/model/random.h"

namespace gpipe::worker {
namespace {

using exported::Node;

constexpr std::string_view kOperators = "torch.ops.";
constexpr std::string_view kRegions = "torch.ops.higher_order.";

// Arguments that say whether the model is being trained, and what they are when it is not. Only of these operators: a
// `training` of another one may mean something else.
struct OperatorArgument {
  std::string_view operator_name;
  std::string_view argument;
};
constexpr OperatorArgument kTrainingArguments[] = {
    {"aten::dropout", "train"},
    {"aten::dropout_", "train"},
    {"aten::feature_dropout", "train"},
    {"aten::feature_dropout_", "train"},
    {"aten::alpha_dropout", "train"},
    {"aten::alpha_dropout_", "train"},
    {"aten::feature_alpha_dropout", "train"},
    {"aten::feature_alpha_dropout_", "train"},
    {"aten::native_dropout", "train"},
    {"aten::batch_norm", "training"},
    {"aten::instance_norm", "use_input_stats"},
    {"aten::lstm", "train"},
    {"aten::gru", "train"},
    {"aten::rnn_tanh", "train"},
    {"aten::rnn_relu", "train"},
    {"aten::rrelu", "training"},
    {"aten::rrelu_", "training"},
};

// Arguments that ask for sparse gradients. They are an optimization of plain SGD, whose result is that of dense ones;
// dense ones can be sent, clipped and used by every optimizer.
constexpr OperatorArgument kSparseGradients[] = {
    {"aten::embedding", "sparse"},
    {"aten::embedding_bag", "sparse"},
    {"aten::_embedding_bag", "sparse"},
    {"aten::gather", "sparse_grad"},
};

constexpr std::string_view kBatchNorm = "aten::batch_norm";
constexpr std::string_view kAttention = "aten::scaled_dot_product_attention";
constexpr std::string_view kCudnnAttention = "aten::_scaled_dot_product_cudnn_attention";

// Operators that have a gradient of a weight added where it is kept (accumulating.h). False: not with these arguments.
using Accumulating = bool (*)(torch::jit::Stack& stack);

bool CallLinear(torch::jit::Stack& stack) {
  const at::Tensor bias = stack[2].isNone() ? at::Tensor() : stack[2].toTensor();
  stack = {AccumulatingLinear(stack[0].toTensor(), stack[1].toTensor(), bias)};
  return true;
}

bool CallAddmm(torch::jit::Stack& stack) {
  if (!stack[3].toScalar().equal(1) || !stack[4].toScalar().equal(1)) return false;
  stack = {AccumulatingAddmm(stack[0].toTensor(), stack[1].toTensor(), stack[2].toTensor())};
  return true;
}

Accumulating FindAccumulating(const c10::OperatorName& name) {
  if (name.name == "aten::linear" && name.overload_name.empty()) return CallLinear;
  return name.name == "aten::addmm" && name.overload_name.empty() ? CallAddmm : nullptr;
}

// Batch norm counts its training batches in a buffer of this name, by an addition of its own.
bool CountsBatches(const Node& node) {
  if (node.target != "torch.ops.aten.add_.Tensor" || node.inputs.empty()) return false;
  const auto* value = std::get_if<exported::ValueName>(&node.inputs.front().argument.value);
  return value != nullptr && absl::EndsWith(value->name, "num_batches_tracked");
}

// A call's results, put where the program names them.
struct ResultSlots {
  bool is_list = false;
  std::vector<std::optional<ResultSlot>> slots;  // None: nothing uses it.

  void Store(c10::IValue value, Frame& frame) const {
    if (!is_list) {
      if (!slots.empty() && slots.front()) slots.front()->Store(std::move(value), frame);
      return;
    }
    const c10::List<c10::IValue> list = value.toList();
    TORCH_CHECK_VALUE(list.size() == slots.size(), "makes ", list.size(), " values instead of ", slots.size());
    for (size_t i = 0; i < slots.size(); ++i) {
      if (slots[i]) slots[i]->Store(list.get(i), frame);
    }
  }
};

class OperatorCall : public Instruction {
 public:
  OperatorCall(c10::OperatorHandle handle, uint64_t position, const CompileOptions& options)
      : handle_(std::move(handle)),
        position_(position),
        device_(options.device),
        deferred_(options.deferred),
        as_it_is_(options.as_it_is),
        random_(handle_.hasTag(at::Tag::nondeterministic_seeded)),
        accumulating_(FindAccumulating(handle_.operator_name())) {}

  void Run(const LayerContext& context, Frame& frame) const override {
    const bool counts = (context.training && !context.recomputing) || as_it_is_;
    if (counts_batches_ && (!counts || deferred_ != nullptr)) {
      if (counts) deferred_->Count(position_, sources_.front().Get(frame).toTensor());
      return results_.front().Store(sources_.front().Get(frame), frame);
    }
    torch::jit::Stack stack;
    stack.reserve(sources_.size());
    for (const ArgumentSource& source : sources_) stack.push_back(source.Get(frame));
    Adapt(context, stack);
    Call(context, stack);
    if (is_attention_) KeepGradientLayout(stack.front().toTensor());
    for (size_t i = 0; i < results_.size(); ++i) results_[i].Store(std::move(stack[i]), frame);
  }

  absl::Status Bind(const Node& node, const Slots& slots) {
    std::set<std::string> used;
    for (const c10::Argument& argument : handle_.schema().arguments()) {
      GPIPE_RETURN_IF_ERROR(BindOne(node, argument, slots, used));
    }
    for (const exported::NamedArgument& input : node.inputs) {
      if (!used.contains(input.name)) {
        return absl::InvalidArgumentError(absl::StrCat("the operator has no argument '", input.name, "'"));
      }
    }
    FindTrainingArguments();
    counts_batches_ = CountsBatches(node);
    return absl::OkStatus();
  }

  absl::Status BindResults(const Node& node, Slots& slots, const Layouts& layouts) {
    if (node.outputs.size() > handle_.schema().returns().size()) {
      return absl::InvalidArgumentError("the operator returns less than the program uses");
    }
    for (const exported::Output& output : node.outputs) {
      ResultSlots& result = results_.emplace_back();
      result.is_list = output.is_list;
      for (const std::string& name : output.names) {
        result.slots.push_back(ResultSlot::Create(name, slots, layouts));
      }
    }
    return absl::OkStatus();
  }

 private:
  void Call(const LayerContext& context, torch::jit::Stack& stack) const {
    if (accumulating_ != nullptr && accumulating_(stack)) return;
    if (!random_ || device_.is_meta()) return handle_.callBoxed(stack);
    if (recurrent_dropout_ && device_.is_cuda()) CheckCanBeRecorded(stack);
    DrawSeeded(device_, context, position_, [&](const at::Generator&) { handle_.callBoxed(stack); });
  }

  // LibTorch gives cuDNN a state of random numbers for it in memory of its own, which goes on by itself, and which it
  // makes anew now and then.
  void CheckCanBeRecorded(const torch::jit::Stack& stack) const {
    const bool draws = stack[*training_].toBool() && stack[*recurrent_dropout_].toDouble() > 0;
    TORCH_CHECK(!draws || !IsRecording(), "dropout within ", handle_.operator_name().name,
                " draws from cuDNN's own state");
  }

  absl::Status BindOne(const Node& node, const c10::Argument& argument, const Slots& slots,
                       std::set<std::string>& used) {
    for (const exported::NamedArgument& input : node.inputs) {
      if (input.name != argument.name()) continue;
      used.insert(input.name);
      absl::StatusOr<ArgumentSource> source =
          ArgumentSource::Create(input.argument, argument.real_type(), slots, device_);
      if (!source.ok()) {
        return absl::Status(source.status().code(),
                            absl::StrCat("argument ", argument.name(), ": ", source.status().message()));
      }
      sources_.push_back(AsksForSparse(argument) ? ArgumentSource::Constant(false) : *std::move(source));
      return absl::OkStatus();
    }
    if (!argument.default_value()) {
      return absl::InvalidArgumentError(absl::StrCat("argument '", argument.name(), "' is missing"));
    }
    sources_.push_back(ArgumentSource::Constant(*argument.default_value()));
    return absl::OkStatus();
  }

  bool AsksForSparse(const c10::Argument& argument) const {
    return std::ranges::any_of(kSparseGradients, [&](const OperatorArgument& one) {
      return handle_.operator_name().name == one.operator_name && argument.name() == one.argument;
    });
  }

  std::optional<size_t> PositionOf(std::string_view argument) const {
    const std::optional<int> index = handle_.schema().argumentIndexWithName(argument);
    return index ? std::optional(static_cast<size_t>(*index)) : std::nullopt;
  }

  void FindTrainingArguments() {
    const std::string& name = handle_.operator_name().name;
    for (const auto& [operator_name, argument] : kTrainingArguments) {
      if (name == operator_name) training_ = PositionOf(argument);
    }
    if (const auto statistics = PositionOf("running_mean")) {
      momentum_ = PositionOf("momentum");
      // Without running statistics a norm has those of its input, always.
      const std::optional<c10::IValue>& constant = sources_[*statistics].constant();
      if (constant && constant->isNone()) training_.reset();
    }
    if (name == kBatchNorm) {
      running_mean_ = PositionOf("running_mean");
      own_statistics_ = PositionOf("training");
    }
    const bool is_recurrent = training_ && PositionOf("num_layers");
    if (is_recurrent) recurrent_dropout_ = PositionOf("dropout");
    if (name == kAttention) attention_dropout_ = PositionOf("dropout_p");
    is_attention_ = name == kAttention || name == kCudnnAttention;
  }

  void Adapt(const LayerContext& context, torch::jit::Stack& stack) const {
    if (!context.training && !as_it_is_) {
      if (training_) stack[*training_] = false;
      if (attention_dropout_) stack[*attention_dropout_] = 0.0;
    }
    if (own_statistics_ && stack[*own_statistics_].toBool()) CheckMoreThanOneValue(stack.front().toTensor());
    if (context.training && !context.recomputing && running_mean_ && deferred_ != nullptr) Defer(stack);
    if (context.recomputing && momentum_) stack[*momentum_] = 0.0;  // The new statistics weigh nothing.
  }

  // Where batch norm keeps statistics and has those of its input.
  void Defer(torch::jit::Stack& stack) const {
    const c10::IValue& mean = stack[*running_mean_];
    if (mean.isNone() || !stack[*own_statistics_].toBool()) return;
    deferred_->Add(position_, stack.front().toTensor(), mean.toTensor(), stack[*running_mean_ + 1].toTensor(),
                   stack[*momentum_].toDouble());
    stack[*momentum_] = 0.0;
  }

  const c10::OperatorHandle handle_;
  const uint64_t position_;
  const c10::Device device_;
  DeferredStatistics* const deferred_;
  const bool as_it_is_;
  const bool random_;
  const Accumulating accumulating_;      // Null: the operator is called.
  std::vector<ArgumentSource> sources_;  // In the order of the schema.
  std::vector<ResultSlots> results_;
  std::optional<size_t> training_, momentum_, running_mean_, own_statistics_, attention_dropout_, recurrent_dropout_;
  bool is_attention_ = false;
  bool counts_batches_ = false;
};

}  // namespace

absl::StatusOr<std::optional<c10::OperatorHandle>> FindOperator(const Node& node) {
  if (!node.target.starts_with(kOperators) || node.target.starts_with(kRegions)) return std::nullopt;
  const std::vector<std::string> parts = absl::StrSplit(node.target.substr(kOperators.size()), '.');
  if (parts.size() == 3) {
    const std::string overload = parts[2] == "default" ? "" : parts[2];
    const c10::OperatorName name(absl::StrCat(parts[0], "::", parts[1]), overload);
    if (auto found = c10::Dispatcher::singleton().findSchema(name)) return found;
  }
  return absl::NotFoundError(absl::StrCat("there is no operator ", node.target, " here"));
}

bool MayWrite(const Node& node) {
  const auto handle = FindOperator(node);
  if (!handle.ok()) return true;
  return handle->has_value() ? (*handle)->schema().is_mutable() : node.target.starts_with(kRegions);
}

bool IsRandomInEvaluation(const c10::OperatorHandle& handle) {
  const std::string& name = handle.operator_name().name;
  const auto is_it = [&](const OperatorArgument& known) { return name == known.operator_name; };
  return handle.hasTag(at::Tag::nondeterministic_seeded) && name != kAttention &&
         std::none_of(std::begin(kTrainingArguments), std::end(kTrainingArguments), is_it);
}

absl::StatusOr<std::unique_ptr<Instruction>> MakeOperatorCall(const Node& node, uint64_t position, Slots& slots,
                                                              const Layouts& layouts, const CompileOptions& options) {
  GPIPE_ASSIGN_OR_RETURN(const std::optional<c10::OperatorHandle> handle, FindOperator(node));
  if (!handle) return absl::InvalidArgumentError(absl::StrCat(node.target, " is no operator"));
  auto call = std::make_unique<OperatorCall>(*handle, position, options);
  GPIPE_RETURN_IF_ERROR(call->Bind(node, slots));
  GPIPE_RETURN_IF_ERROR(call->BindResults(node, slots, layouts));
  return call;
}

}  // namespace gpipe::worker
