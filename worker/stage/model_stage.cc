#include "worker/stage/model_stage.h"

#include <ATen/ATen.h>
#include <torch/csrc/autograd/engine.h>
#include <torch/csrc/autograd/grad_mode.h>
#include <torch/csrc/autograd/variable.h>

#include <algorithm>
#include <iterator>
#include <numeric>
#include <utility>

#include "absl/strings/str_cat.h"
#include "common/status_macros.h"
#include "worker/model/frozen.h"
#include "worker/model/memory_meter.h"
#include "worker/stage/masters.h"
#include "worker/torch_status.h"

namespace gpipe::worker {
namespace {

absl::Status Prefixed(const std::string& prefix, const absl::Status& status) {
  return absl::Status(status.code(), absl::StrCat(prefix, ": ", status.message()));
}

std::vector<std::string> NamesOf(const std::vector<CrossingValue>& values) {
  std::vector<std::string> names;
  for (const CrossingValue& value : values) names.push_back(value.name);
  return names;
}

// What leaves a stage: on its worker or to another one it is the same.
at::Tensor Detached(const at::Tensor& tensor, const DimensionOrder& order = {}) {
  return tensor.defined() ? InOrder(tensor, order) : tensor;
}

absl::Status CheckSamples(const CrossingValue& value, const at::Tensor& tensor, int64_t samples) {
  const int64_t found = tensor.dim() == 0 ? 0 : tensor.size(0);
  if (!value.begins_with_batch || found == samples) return absl::OkStatus();
  return absl::InvalidArgumentError(absl::StrCat("'", value.name, "' has ", found, " samples instead of ", samples));
}

}  // namespace

absl::StatusOr<std::unique_ptr<ModelStage>> ModelStage::Create(StageParts parts) {
  std::vector<std::string> leaving = NamesOf(parts.outgoing);
  for (const OutputValue& output : parts.outputs) leaving.push_back(output.value);
  GPIPE_ASSIGN_OR_RETURN(Segment segment, Segment::Create(std::move(parts.layers), NamesOf(parts.incoming), leaving));
  return CatchTorch([&]() -> absl::StatusOr<std::unique_ptr<ModelStage>> {
    return std::unique_ptr<ModelStage>(new ModelStage(std::move(parts), std::move(segment)));
  });
}

ModelStage::ModelStage(StageParts parts, Segment segment)
    : segment_(std::move(segment)),
      incoming_(std::move(parts.incoming)),
      outgoing_(std::move(parts.outgoing)),
      outputs_(std::move(parts.outputs)),
      loss_(std::move(parts.loss)),
      needs_backward_(parts.needs_backward),
      device_(parts.device),
      gradients_(parts.held) {
  CollectState(parts);
}

void ModelStage::CollectState(const StageParts& parts) {
  for (const ModelLayer& layer : segment_.layers()) {
    for (const LayerTensor& entry : layer.layer->tensors()) {
      NamedTensor named{layer.prefix + entry.name, layer.index, entry.tensor, false};
      if (const auto known = parts.layer_of.find(named.name); known != parts.layer_of.end())
        named.layer = known->second;
      named.owned = !parts.elsewhere.contains(named.name);
      named.trainable = parts.training && entry.parameter && !IsFrozen(parts.frozen, named.name);
      named.tensor.set_requires_grad(named.trainable);
      named.master = entry.master;
      GiveMaster(parts.precision, parts.masters, named);
      state_.push_back(std::move(named));
    }
  }
}

absl::Status ModelStage::Begin(MiniBatch mini_batch) {
  if (open_) return absl::FailedPreconditionError("the last mini-batch has not ended");
  const auto& sizes = mini_batch.micro_batch_sizes;
  offsets_.assign(sizes.size(), 0);
  std::exclusive_scan(sizes.begin(), sizes.end(), offsets_.begin(), int64_t{0});
  const int64_t samples = std::accumulate(sizes.begin(), sizes.end(), int64_t{0});
  if (loss_ != nullptr && loss_->has_target() &&
      (!mini_batch.target.defined() || mini_batch.target.dim() == 0 || mini_batch.target.size(0) != samples)) {
    return absl::InvalidArgumentError(absl::StrCat("the mini-batch's target must have ", samples, " samples"));
  }
  return CatchTorch([&] {
    mini_batch_ = std::move(mini_batch);
    if (mini_batch_.training && !mini_batch_.accumulates) gradients_.Reset(state_);
    if (loss_ != nullptr) loss_->Begin(mini_batch_.target, samples);
    saved_.clear();
    counts_.assign(offsets_.size(), {});
    weights_.reset();
    saved_bytes_ = peak_bytes_ = 0;
    open_ = true;
    resumed_ = false;
    return absl::OkStatus();
  });
}

absl::Status ModelStage::Suspend(int64_t id) {
  if (!open_ || !mini_batch_.training) return absl::FailedPreconditionError("no training mini-batch has begun");
  if (suspended_.contains(id)) return absl::FailedPreconditionError(absl::StrCat("forward ", id, " is there already"));
  suspended_[id] = {mini_batch_, offsets_, std::exchange(saved_, {}), counts_, saved_bytes_};
  return Close();
}

absl::Status ModelStage::Resume(int64_t id) {
  const auto found = suspended_.find(id);
  if (open_ || found == suspended_.end()) {
    return absl::FailedPreconditionError(absl::StrCat("there is no forward ", id, " to go back through"));
  }
  Suspended& suspended = found->second;
  mini_batch_ = std::move(suspended.mini_batch);
  offsets_ = std::move(suspended.offsets);
  saved_ = std::move(suspended.saved);
  counts_ = std::move(suspended.counts);
  saved_bytes_ = peak_bytes_ = suspended.saved_bytes;
  weights_.reset();
  suspended_.erase(found);
  open_ = resumed_ = true;
  return CatchTorch([this] {
    gradients_.Attach(state_);
    return absl::OkStatus();
  });
}

absl::Status ModelStage::Drop(int64_t id) {
  const auto found = suspended_.find(id);
  if (found == suspended_.end()) {
    return absl::FailedPreconditionError(absl::StrCat("there is no forward ", id, " to drop"));
  }
  segment_.ForgetMiniBatch(found->second.mini_batch.step);
  suspended_.erase(found);
  return absl::OkStatus();
}

absl::Status ModelStage::CheckForward(int micro_batch, ForwardMode mode) const {
  if (!open_) return absl::FailedPreconditionError("no mini-batch has begun");
  if (micro_batch < 0 || micro_batch >= static_cast<int>(offsets_.size())) {
    return absl::InvalidArgumentError(absl::StrCat("micro-batch ", micro_batch, " of ", offsets_.size()));
  }
  if (mode != ForwardMode::kInference && !mini_batch_.training) {
    return absl::FailedPreconditionError("a mini-batch that is not for training has no backward");
  }
  if (saved_.contains(micro_batch)) {
    return absl::FailedPreconditionError(absl::StrCat("micro-batch ", micro_batch, " has been forward already"));
  }
  return absl::OkStatus();
}

absl::StatusOr<std::vector<at::Tensor>> ModelStage::TakeInputs(int micro_batch,
                                                               const std::vector<at::Tensor>& inputs) const {
  std::vector<at::Tensor> taken;
  for (size_t i = 0; i < incoming_.size(); ++i) {
    const CrossingValue& value = incoming_[i];
    if (i >= inputs.size() || !inputs[i].defined()) {
      return absl::InvalidArgumentError(absl::StrCat("micro-batch ", micro_batch, ": no value '", value.name, "'"));
    }
    const absl::Status fits = CheckSamples(value, inputs[i], SamplesOf(micro_batch));
    if (!fits.ok()) return Prefixed(absl::StrCat("micro-batch ", micro_batch), fits);
    const bool cast = value.cast != c10::ScalarType::Undefined && inputs[i].is_floating_point();
    taken.push_back(cast ? inputs[i].detach().to(value.cast) : inputs[i].detach());
  }
  return taken;
}

LayerContext ModelStage::ContextOf(int micro_batch, bool training, bool recomputing) const {
  return {training, recomputing, mini_batch_.seed, mini_batch_.step, micro_batch};
}

at::Tensor ModelStage::TargetOf(int micro_batch) const {
  if (!loss_->has_target()) return {};
  return mini_batch_.target.narrow(0, offsets_[micro_batch], SamplesOf(micro_batch));
}

absl::StatusOr<ModelStage::Results> ModelStage::Run(int micro_batch, const LayerContext& context,
                                                    std::vector<at::Tensor> values) const {
  Results results;
  GPIPE_ASSIGN_OR_RETURN(results.outgoing, segment_.Run(context, std::move(values)));
  const auto outputs = results.outgoing.begin() + static_cast<std::ptrdiff_t>(outgoing_.size());
  results.outputs.assign(std::make_move_iterator(outputs), std::make_move_iterator(results.outgoing.end()));
  results.outgoing.resize(outgoing_.size());
  if (loss_ == nullptr) return results;
  const absl::Status status = CatchTorch([&] {
    results.loss = loss_->Share(results.outputs.front(), TargetOf(micro_batch), SamplesOf(micro_batch));
    if (!context.recomputing) results.count = loss_->Count(TargetOf(micro_batch), results.outputs.back());
    return absl::OkStatus();
  });
  if (!status.ok()) return Prefixed("loss", status);
  return results;
}

absl::StatusOr<ModelStage::Results> ModelStage::RunWithoutGraph(int micro_batch, const LayerContext& context,
                                                                std::vector<at::Tensor> values) const {
  torch::autograd::AutoGradMode no_grad(false);
  const MemoryMeter meter(device_);  // Batch norm holds tensors that a run with a graph, which is metered, lets go of.
  return Run(micro_batch, context, std::move(values));
}

absl::StatusOr<ModelStage::Results> ModelStage::RunWithGraph(int micro_batch, const LayerContext& context,
                                                             Saved& saved) const {
  torch::autograd::AutoGradMode with_grad(true);
  const MemoryMeter meter(device_);
  std::vector<at::Tensor> values;
  for (size_t i = 0; i < incoming_.size(); ++i) {
    const bool tracked =
        incoming_[i].requires_grad && torch::autograd::isDifferentiableType(saved.inputs[i].scalar_type());
    at::Tensor value = tracked ? saved.inputs[i].detach().set_requires_grad(true) : saved.inputs[i];
    saved.leaves.push_back(tracked ? value : at::Tensor());
    values.push_back(std::move(value));
  }
  GPIPE_ASSIGN_OR_RETURN(Results results, Run(micro_batch, context, std::move(values)));
  GPIPE_RETURN_IF_ERROR(CheckGradients(results.outgoing));
  // Only the edges into the graph are kept: an output that the graph itself does not need goes when it has been sent.
  const auto cut = [&](at::Tensor& tensor, bool root, const DimensionOrder& order) {
    root = root && tensor.requires_grad();
    saved.roots.push_back(root ? torch::autograd::impl::gradient_edge(tensor) : torch::autograd::Edge());
    tensor = Detached(tensor, order);
  };
  for (size_t i = 0; i < outgoing_.size(); ++i) {
    cut(results.outgoing[i], outgoing_[i].requires_grad, outgoing_[i].order);
  }
  if (loss_ != nullptr) cut(results.loss, true, {});
  results.outputs.clear();
  saved.has_graph = true;
  saved.bytes += meter.Allocated() - OwnBytes(results.outgoing);
  return results;
}

// The plan has said of each value whether a gradient comes back; one that nobody sends back would be lost in silence.
absl::Status ModelStage::CheckGradients(const std::vector<at::Tensor>& outgoing) const {
  for (size_t i = 0; i < outgoing_.size(); ++i) {
    if (outgoing_[i].requires_grad || !outgoing[i].requires_grad()) continue;
    return absl::InternalError(
        absl::StrCat("'", outgoing_[i].name, "' has a gradient, and the plan says that it has none"));
  }
  return absl::OkStatus();
}

void ModelStage::Keep(int micro_batch, Saved saved) {
  saved_bytes_ += saved.bytes;
  peak_bytes_ = std::max(peak_bytes_, saved_bytes_);
  saved_.insert_or_assign(micro_batch, std::move(saved));
}

PassResults ModelStage::Leave(int micro_batch, Results results, ForwardMode mode) const {
  PassResults left;
  for (size_t i = 0; i < outgoing_.size(); ++i) {
    left.values.push_back(Detached(results.outgoing[i], outgoing_[i].order));
  }
  left.count = results.count;
  left.loss = Detached(results.loss);
  if (left.count.defined()) {
    // Over nothing it is 0/0, and no part of the mean.
    const at::Tensor weighted = left.loss * left.count;
    left.loss = at::where(left.count > 0, weighted, at::zeros_like(weighted));
  }
  if (mode != ForwardMode::kInference) return left;
  if (loss_ != nullptr) left.hits = loss_->Hits(results.outputs.front(), TargetOf(micro_batch));
  for (const at::Tensor& output : results.outputs) left.outputs.push_back(Detached(output));
  return left;
}

absl::StatusOr<PassResults> ModelStage::Forward(int micro_batch, std::vector<at::Tensor> inputs, ForwardMode mode) {
  GPIPE_RETURN_IF_ERROR(CheckForward(micro_batch, mode));
  return CatchTorch([&]() -> absl::StatusOr<PassResults> {
    Saved saved;
    GPIPE_ASSIGN_OR_RETURN(saved.inputs, TakeInputs(micro_batch, inputs));
    const LayerContext context = ContextOf(micro_batch, mode != ForwardMode::kInference, /*recomputing=*/false);
    const bool keeps = mode != ForwardMode::kInference && needs_backward_;
    if (keeps) saved.bytes = TotalBytes(saved.inputs);
    GPIPE_ASSIGN_OR_RETURN(Results results, keeps && mode == ForwardMode::kKeep
                                                ? RunWithGraph(micro_batch, context, saved)
                                                : RunWithoutGraph(micro_batch, context, saved.inputs));
    if (keeps) Keep(micro_batch, std::move(saved));
    counts_[micro_batch] = results.count;
    return Leave(micro_batch, std::move(results), mode);
  });
}

absl::Status ModelStage::Recompute(int micro_batch) {
  const auto found = saved_.find(micro_batch);
  if (found == saved_.end() || found->second.has_graph) {
    return absl::FailedPreconditionError(absl::StrCat("micro-batch ", micro_batch, " has no inputs to recompute from"));
  }
  return CatchTorch([&]() -> absl::Status {
    Saved saved = std::move(found->second);
    saved_bytes_ -= saved.bytes;
    saved_.erase(found);
    GPIPE_RETURN_IF_ERROR(
        RunWithGraph(micro_batch, ContextOf(micro_batch, true, /*recomputing=*/true), saved).status());
    Keep(micro_batch, std::move(saved));
    return absl::OkStatus();
  });
}

absl::StatusOr<std::vector<at::Tensor>> ModelStage::Backward(int micro_batch, std::vector<at::Tensor> gradients) {
  const auto found = saved_.find(micro_batch);
  if (found == saved_.end() || !found->second.has_graph) {
    return absl::FailedPreconditionError(
        absl::StrCat("micro-batch ", micro_batch, " has no forward pass to go back through"));
  }
  return CatchTorch([&]() -> absl::StatusOr<std::vector<at::Tensor>> {
    Saved saved = std::move(found->second);
    saved_bytes_ -= saved.bytes;
    saved_.erase(found);
    if (const absl::Status status = RunBackward(micro_batch, saved, gradients); !status.ok()) {
      return Prefixed(
          absl::StrCat("backward of layers ", segment_.layers().front().index, " to ", segment_.layers().back().index),
          status);
    }
    return TakeInputGradients(saved);
  });
}

absl::StatusOr<at::Tensor> ModelStage::LossGradient(int micro_batch) {
  GPIPE_ASSIGN_OR_RETURN(const at::Tensor weight, LossWeight(micro_batch));
  return mini_batch_.loss_scale.defined() ? weight * mini_batch_.loss_scale : weight;
}

absl::StatusOr<at::Tensor> ModelStage::LossWeight(int micro_batch) {
  if (!counts_[micro_batch].defined()) return at::ones({}, at::device(device_).dtype(at::kFloat));
  if (!weights_.defined()) {
    if (!std::ranges::all_of(counts_, [](const at::Tensor& count) { return count.defined(); })) {
      return absl::FailedPreconditionError("the loss is weighed once all micro-batches are forward");
    }
    const at::Tensor counts = at::stack(counts_);
    weights_ = (counts / counts.sum()).to(at::kFloat);
  }
  return weights_[micro_batch];
}

absl::Status ModelStage::RunBackward(int micro_batch, const Saved& saved, const std::vector<at::Tensor>& gradients) {
  torch::autograd::edge_list roots;
  torch::autograd::variable_list root_gradients;
  for (size_t i = 0; i < saved.roots.size(); ++i) {
    if (!saved.roots[i].is_valid()) continue;
    roots.push_back(saved.roots[i]);
    if (i == outgoing_.size()) {  // The loss.
      GPIPE_ASSIGN_OR_RETURN(root_gradients.emplace_back(), LossGradient(micro_batch));
      continue;
    }
    if (i >= gradients.size() || !gradients[i].defined()) {
      return absl::InvalidArgumentError(absl::StrCat("no gradient of '", outgoing_[i].name, "'"));
    }
    root_gradients.push_back(gradients[i]);
  }
  if (roots.empty()) return absl::OkStatus();
  return CatchTorch([&] {
    torch::autograd::Engine::get_default_engine().execute(roots, root_gradients, /*keep_graph=*/false,
                                                          /*create_graph=*/false, /*accumulate_grad=*/true);
    return absl::OkStatus();
  });
}

std::vector<at::Tensor> ModelStage::TakeInputGradients(Saved& saved) const {
  std::vector<at::Tensor> gradients(incoming_.size());
  for (size_t i = 0; i < incoming_.size(); ++i) {
    if (!incoming_[i].requires_grad) continue;
    const at::Tensor gradient = saved.leaves[i].defined() ? saved.leaves[i].grad() : at::Tensor();
    gradients[i] = gradient.defined() ? Detached(gradient, incoming_[i].order) : at::zeros_like(saved.inputs[i]);
  }
  return gradients;
}

absl::Status ModelStage::End() {
  if (!open_) return absl::FailedPreconditionError("no mini-batch has begun");
  if (!saved_.empty()) {
    open_ = false;
    std::string left;
    for (const auto& [micro_batch, saved] : saved_) absl::StrAppend(&left, left.empty() ? "" : ", ", micro_batch);
    saved_.clear();
    return absl::InternalError(absl::StrCat("micro-batches without a backward pass at the end: ", left));
  }
  GPIPE_RETURN_IF_ERROR(Close());
  if (mini_batch_.training) segment_.ForgetMiniBatch(mini_batch_.step);
  return absl::OkStatus();
}

absl::Status ModelStage::Close() {
  open_ = false;
  return CatchTorch([&] {
    if (mini_batch_.training && !resumed_) segment_.EndMiniBatch();
    mini_batch_.target.reset();
    return absl::OkStatus();
  });
}

absl::Status ModelStage::Abandon() {
  saved_.clear();
  return open_ ? End() : absl::OkStatus();
}

}  // namespace gpipe::worker
