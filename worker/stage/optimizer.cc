#include "worker/stage/optimizer.h"

#include <ATen/ATen.h>
#include <torch/csrc/autograd/grad_mode.h>

#include <algorithm>
#include <map>
#include <utility>

#include "absl/strings/str_cat.h"
#include "common/status_macros.h"
#include "worker/stage/masters.h"
#include "worker/stage/update_rule.h"
#include "worker/torch_status.h"

namespace gpipe::worker {
namespace {

constexpr char kStep[] = "step";

// A complex number is two real ones to PyTorch's optimizers, and to the norm of a gradient.
at::Tensor AsReal(const at::Tensor& tensor) {
  return tensor.is_complex() ? at::view_as_real(tensor.resolve_conj()) : tensor;
}

// The gradient as the parameter lies in memory, which is how autograd makes it, but for sums over workers.
at::Tensor LikeParameter(const at::Tensor& gradient, const at::Tensor& parameter) {
  if (gradient.strides() == parameter.strides() && gradient.scalar_type() == parameter.scalar_type()) return gradient;
  return at::empty_like(parameter).copy_(gradient);
}

// What is updated.
at::Tensor Updated(const NamedTensor& parameter) {
  return parameter.master.defined() ? parameter.master : parameter.tensor.detach();
}

// In files steps are counted in whole numbers; everything else is like what is updated.
absl::StatusOr<at::Tensor> LoadSlot(const Values& state, const NamedTensor& parameter, const std::string& slot) {
  const std::string name = absl::StrCat(parameter.name, "/", slot);
  const auto found = state.find(name);
  if (found == state.end()) return absl::NotFoundError(absl::StrCat("optimizer state: no tensor '", name, "'"));
  const at::Tensor& tensor = found->second;
  const bool counts = slot == kStep;
  const at::Tensor updated = Updated(parameter);
  const bool fits = counts ? tensor.numel() == 1 : tensor.sizes() == updated.sizes();
  const auto type = counts ? at::kLong : updated.scalar_type();
  if (!fits || tensor.scalar_type() != type) {
    return absl::InvalidArgumentError(absl::StrCat("optimizer state: '", name, "' does not fit its parameter"));
  }
  if (counts) return tensor.detach().reshape({}).to(updated.device(), at::kFloat);
  return AsReal(at::empty_like(updated).copy_(tensor.detach()));
}

// Of one gradient on the CPU. Blocks in its own type, their sum in double: LibTorch's norm of millions of elements in
// float is wrong in the third digit, and in double it takes a tenth of a step of a model with a large embedding.
at::Tensor SquaredNorm(const at::Tensor& gradient) {
  constexpr int64_t kBlock = 256;
  if (gradient.numel() <= kBlock)
    return at::linalg_vector_norm(gradient, 2, at::OptionalIntArrayRef(), false, at::kDouble).square_();
  const at::Tensor flat = gradient.reshape({-1});
  const int64_t whole = flat.numel() - flat.numel() % kBlock;
  const at::Tensor norms = at::cat({at::linalg_vector_norm(flat.slice(0, 0, whole).view({-1, kBlock}), 2, {1}),
                                    at::linalg_vector_norm(flat.slice(0, whole), 2).view({1})});
  return norms.to(at::kDouble).square_().sum();
}

at::Tensor SquaredNorms(const std::vector<at::Tensor>& gradients) {
  if (!gradients.front().is_cpu()) return at::stack(at::_foreach_norm(gradients, 2, at::kDouble)).square_();
  std::vector<at::Tensor> squares;
  for (const at::Tensor& gradient : gradients) squares.push_back(SquaredNorm(gradient));
  return at::stack(squares);
}

class RuledOptimizer : public Optimizer {
 public:
  RuledOptimizer(std::unique_ptr<UpdateRule> rule, std::vector<NamedTensor> parameters, c10::Device device,
                 const MixedState::Options& mixed)
      : rule_(std::move(rule)),
        parameters_(std::move(parameters)),
        names_(rule_->slots()),
        device_(device),
        loss_scale_(mixed.loss_scale),
        mixed_(mixed, parameters_),
        slots_(parameters_.size()) {
    for (const NamedTensor& parameter : parameters_) updated_.push_back(AsReal(Updated(parameter)));
  }

  at::Tensor SquaredGradientNorms(int64_t layers) const override {
    torch::autograd::AutoGradMode no_grad(false);
    at::Tensor squares = at::zeros({layers}, at::device(device_).dtype(at::kDouble));
    const std::vector<const NamedTensor*> counting = CountingByLayer();
    if (counting.empty()) return squares;
    std::vector<at::Tensor> gradients;
    for (const NamedTensor* parameter : counting) gradients.push_back(AsReal(parameter->tensor.grad()));
    const at::Tensor each = SquaredNorms(gradients);
    // One sum per layer: then what else the worker hosts makes no difference.
    for (size_t first = 0, end = 0; first < counting.size(); first = end) {
      while (end < counting.size() && counting[end]->layer == counting[first]->layer) ++end;
      at::Tensor sum = squares[counting[first]->layer];
      at::sum_out(sum, each.slice(0, first, end), at::IntArrayRef{0});
    }
    return squares;
  }

  absl::Status ClipGradients(const at::Tensor& norm, double max_norm) override {
    return CatchTorch([&] {
      torch::autograd::AutoGradMode no_grad(false);
      const at::Tensor scale = (max_norm / (norm + 1e-6)).clamp_max(1.0);
      for (const NamedTensor& parameter : parameters_) {
        if (at::Tensor& gradient = parameter.tensor.mutable_grad(); gradient.defined()) gradient.mul_(scale);
      }
      return absl::OkStatus();
    });
  }

  absl::Status Step(double lr) override {
    return CatchTorch([&] {
      const torch::autograd::AutoGradMode no_grad(false);
      for (auto& [key, batch] : Batches()) {
        rule_->Update(batch, lr);
        // A backward pass that needs the old values is told so: ATen's fused updates do not tell autograd.
        for (const at::Tensor& parameter : batch.parameters) parameter.unsafeGetTensorImpl()->bump_version();
      }
      if (loss_scale_ != nullptr) loss_scale_->Update();
      return RoundMasters(parameters_);
    });
  }

  std::vector<NamedTensor> State() const override {
    std::vector<NamedTensor> result = mixed_.State();
    for (size_t i = 0; i < parameters_.size(); ++i) {
      const NamedTensor& parameter = parameters_[i];
      if (!parameter.owned) continue;
      for (size_t slot = 0; slot < slots_[i].size(); ++slot) {
        result.push_back({absl::StrCat(parameter.name, "/", names_[slot]), parameter.layer, Saved(i, slot)});
      }
    }
    return result;
  }

  absl::Status LoadState(const Values& state) override {
    return CatchTorch([&]() -> absl::Status {
      for (size_t i = 0; i < parameters_.size(); ++i) {
        GPIPE_ASSIGN_OR_RETURN(slots_[i], SlotsIn(state, parameters_[i]));
      }
      return mixed_.Load(state);
    });
  }

  std::vector<std::string> StateNames() const override {
    std::vector<std::string> names = mixed_.Names();
    for (const NamedTensor& parameter : parameters_) {
      for (const std::string& slot : names_) names.push_back(absl::StrCat(parameter.name, "/", slot));
    }
    return names;
  }

 private:
  using BatchKey = std::pair<c10::ScalarType, bool>;  // Type, and whether it is the first update.

  // The parameters with gradients, those together that one launch can take.
  std::map<BatchKey, UpdateBatch> Batches() {
    std::map<BatchKey, UpdateBatch> batches;
    for (size_t i = 0; i < parameters_.size(); ++i) {
      const at::Tensor& gradient = parameters_[i].tensor.grad();
      if (!gradient.defined()) continue;
      const bool first = slots_[i].empty();
      if (first) slots_[i] = rule_->NewSlots(updated_[i]);
      UpdateBatch& batch = batches[{updated_[i].scalar_type(), first}];
      batch.first = first;
      if (loss_scale_ != nullptr) {
        batch.grad_scale = loss_scale_->scale();
        batch.overflow = loss_scale_->overflow();
      }
      batch.parameters.push_back(updated_[i]);
      batch.gradients.push_back(LikeParameter(AsReal(gradient), updated_[i]));
      batch.slots.resize(names_.size());
      for (size_t slot = 0; slot < names_.size(); ++slot) batch.slots[slot].push_back(slots_[i][slot]);
    }
    return batches;
  }

  // A slot as it is in files.
  at::Tensor Saved(size_t parameter, size_t slot) const {
    const at::Tensor& tensor = slots_[parameter][slot];
    if (names_[slot] == kStep) return tensor.to(at::kLong);
    return parameters_[parameter].tensor.is_complex() ? at::view_as_complex(tensor) : tensor;
  }

  // Those whose gradients count here, layer by layer. An exported model's parameters come in the order in which they
  // were registered.
  std::vector<const NamedTensor*> CountingByLayer() const {
    std::vector<const NamedTensor*> counting;
    for (const NamedTensor& parameter : parameters_) {
      if (parameter.tensor.grad().defined() && parameter.owned) counting.push_back(&parameter);
    }
    std::ranges::stable_sort(counting, {}, &NamedTensor::layer);
    return counting;
  }

  bool HasState(const Values& state, const NamedTensor& parameter) const {
    return std::ranges::any_of(
        names_, [&](const std::string& slot) { return state.contains(absl::StrCat(parameter.name, "/", slot)); });
  }

  // None, where it has never been updated.
  absl::StatusOr<std::vector<at::Tensor>> SlotsIn(const Values& state, const NamedTensor& parameter) const {
    std::vector<at::Tensor> slots;
    if (!HasState(state, parameter)) return slots;
    for (const std::string& name : names_) {
      GPIPE_ASSIGN_OR_RETURN(slots.emplace_back(), LoadSlot(state, parameter, name));
    }
    return slots;
  }

  const std::unique_ptr<UpdateRule> rule_;
  const std::vector<NamedTensor> parameters_;
  const std::vector<std::string> names_;  // Of slots.
  const c10::Device device_;
  LossScale* const loss_scale_;  // Null: there is none.
  MixedState mixed_;
  std::vector<at::Tensor> updated_;  // The parameters or their masters; of complex ones views as real numbers.
  std::vector<std::vector<at::Tensor>> slots_;  // By parameter; empty before its first update.
};

}  // namespace

absl::StatusOr<std::unique_ptr<Optimizer>> Optimizer::Create(const v1::Optimizer& spec,
                                                             std::vector<NamedTensor> parameters, c10::Device device,
                                                             const MixedState::Options& mixed) {
  return CatchTorch([&]() -> absl::StatusOr<std::unique_ptr<Optimizer>> {
    std::erase_if(parameters, [](const NamedTensor& parameter) { return !parameter.trainable; });
    return std::make_unique<RuledOptimizer>(UpdateRule::Create(spec), std::move(parameters), device, mixed);
  });
}

}  // namespace gpipe::worker
