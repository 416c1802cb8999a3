#include "worker/stage/optimizer.h"

#include <ATen/ATen.h>
#include <torch/csrc/autograd/grad_mode.h>
#include <torch/optim/adam.h>
#include <torch/optim/adamw.h>
#include <torch/optim/sgd.h>

#include <algorithm>
#include <utility>

#include "absl/strings/str_cat.h"
#include "common/status_macros.h"
#include "worker/torch_status.h"

namespace gpipe::worker {
namespace {

using ParamState = torch::optim::OptimizerParamState;

// How one kind of optimizer keeps its state of one parameter: tensors by slot name.
struct SgdSlots {
  static std::vector<std::string> Names(const v1::Optimizer& spec) {
    if (spec.sgd().momentum() == 0) return {};
    return {"momentum_buffer"};
  }
  static Values Read(const ParamState& state) {
    return {{"momentum_buffer", static_cast<const torch::optim::SGDParamState&>(state).momentum_buffer()}};
  }
  static std::unique_ptr<ParamState> Make(const Values& slots) {
    auto state = std::make_unique<torch::optim::SGDParamState>();
    state->momentum_buffer(slots.at("momentum_buffer"));
    return state;
  }
};

template <typename State>
struct AdamSlots {
  static std::vector<std::string> Names(const v1::Optimizer&) { return {"exp_avg", "exp_avg_sq", "step"}; }
  static Values Read(const ParamState& param_state) {
    const auto& state = static_cast<const State&>(param_state);
    return {{"exp_avg", state.exp_avg()},
            {"exp_avg_sq", state.exp_avg_sq()},
            {"step", at::full({}, state.step(), at::kLong)}};
  }
  static std::unique_ptr<ParamState> Make(const Values& slots) {
    auto state = std::make_unique<State>();
    state->exp_avg(slots.at("exp_avg"));
    state->exp_avg_sq(slots.at("exp_avg_sq"));
    state->step(slots.at("step").template item<int64_t>());
    return state;
  }
};

// A complex number is two real ones to PyTorch's optimizers, and to the norm of a gradient.
at::Tensor AsReal(const at::Tensor& tensor) {
  return tensor.is_complex() ? at::view_as_real(tensor.resolve_conj()) : tensor;
}

constexpr char kStep[] = "step";

// `step` counts on the host; everything else is like its parameter.
absl::StatusOr<at::Tensor> LoadSlot(const Values& state, const NamedTensor& parameter, const std::string& slot) {
  const std::string name = absl::StrCat(parameter.name, "/", slot);
  const auto found = state.find(name);
  if (found == state.end()) return absl::NotFoundError(absl::StrCat("optimizer state: no tensor '", name, "'"));
  const at::Tensor& tensor = found->second;
  const bool counts = slot == kStep;
  const bool fits = counts ? tensor.numel() == 1 : tensor.sizes() == parameter.tensor.sizes();
  const auto type = counts ? at::kLong : parameter.tensor.scalar_type();
  if (!fits || tensor.scalar_type() != type) {
    return absl::InvalidArgumentError(absl::StrCat("optimizer state: '", name, "' does not fit its parameter"));
  }
  const auto device = counts ? at::kCPU : parameter.tensor.device();
  return AsReal(tensor.detach().to(device, type, /*non_blocking=*/false, /*copy=*/true));
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

template <typename Slots>
class TorchOptimizer : public Optimizer {
 public:
  TorchOptimizer(std::unique_ptr<torch::optim::Optimizer> torch, std::vector<NamedTensor> parameters,
                 std::vector<at::Tensor> optimized, std::vector<std::string> slots, c10::Device device)
      : torch_(std::move(torch)),
        parameters_(std::move(parameters)),
        optimized_(std::move(optimized)),
        slots_(std::move(slots)),
        device_(device) {}

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
      for (auto& group : torch_->param_groups()) group.options().set_lr(lr);
      for (size_t i = 0; i < parameters_.size(); ++i) {
        const at::Tensor& gradient = parameters_[i].tensor.grad();
        if (parameters_[i].tensor.is_complex()) {
          optimized_[i].mutable_grad() = gradient.defined() ? AsReal(gradient) : at::Tensor();
        }
      }
      torch_->step();
      return absl::OkStatus();
    });
  }

  std::vector<NamedTensor> State() const override {
    std::vector<NamedTensor> result;
    for (size_t i = 0; i < parameters_.size(); ++i) {
      const NamedTensor& parameter = parameters_[i];
      const auto found = torch_->state().find(optimized_[i].unsafeGetTensorImpl());
      if (slots_.empty() || found == torch_->state().end() || !parameter.owned) continue;
      for (const auto& [slot, tensor] : Slots::Read(*found->second)) {
        const bool complex = parameter.tensor.is_complex() && slot != kStep;
        result.push_back(
            {absl::StrCat(parameter.name, "/", slot), parameter.layer, complex ? at::view_as_complex(tensor) : tensor});
      }
    }
    return result;
  }

  absl::Status LoadState(const Values& state) override {
    if (slots_.empty()) return absl::OkStatus();
    return CatchTorch([&]() -> absl::Status {
      for (size_t i = 0; i < parameters_.size(); ++i) {
        const NamedTensor& parameter = parameters_[i];
        if (!HasState(state, parameter)) continue;
        Values slots;
        for (const std::string& slot : slots_) {
          GPIPE_ASSIGN_OR_RETURN(slots[slot], LoadSlot(state, parameter, slot));
        }
        torch_->state()[optimized_[i].unsafeGetTensorImpl()] = Slots::Make(slots);
      }
      return absl::OkStatus();
    });
  }

  std::vector<std::string> StateNames() const override {
    std::vector<std::string> names;
    for (const NamedTensor& parameter : parameters_) {
      for (const std::string& slot : slots_) names.push_back(absl::StrCat(parameter.name, "/", slot));
    }
    return names;
  }

 private:
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
        slots_, [&](const std::string& slot) { return state.contains(absl::StrCat(parameter.name, "/", slot)); });
  }

  const std::unique_ptr<torch::optim::Optimizer> torch_;
  const std::vector<NamedTensor> parameters_;
  const std::vector<at::Tensor> optimized_;  // The same; of complex ones views as real numbers.
  const std::vector<std::string> slots_;
  const c10::Device device_;
};

std::unique_ptr<torch::optim::Optimizer> MakeSgd(const v1::Sgd& spec, std::vector<at::Tensor> tensors) {
  torch::optim::SGDOptions options(spec.lr());
  options.momentum(spec.momentum()).dampening(spec.dampening()).weight_decay(spec.weight_decay());
  options.nesterov(spec.nesterov());
  return std::make_unique<torch::optim::SGD>(std::move(tensors), options);
}

template <typename TorchOptim, typename Options>
std::unique_ptr<torch::optim::Optimizer> MakeAdam(const v1::Adam& spec, std::vector<at::Tensor> tensors) {
  TORCH_CHECK_VALUE(spec.betas_size() == 2, "optimizer: expects two betas, gets ", spec.betas_size());
  Options options(spec.lr());
  options.betas({spec.betas(0), spec.betas(1)}).eps(spec.eps()).weight_decay(spec.weight_decay());
  return std::make_unique<TorchOptim>(std::move(tensors), options);
}

template <typename Slots>
std::unique_ptr<Optimizer> Wrap(const v1::Optimizer& spec, std::unique_ptr<torch::optim::Optimizer> torch,
                                std::vector<NamedTensor> parameters, std::vector<at::Tensor> optimized,
                                c10::Device device) {
  return std::make_unique<TorchOptimizer<Slots>>(std::move(torch), std::move(parameters), std::move(optimized),
                                                 Slots::Names(spec), device);
}

}  // namespace

absl::StatusOr<std::unique_ptr<Optimizer>> Optimizer::Create(const v1::Optimizer& spec,
                                                             std::vector<NamedTensor> parameters, c10::Device device) {
  return CatchTorch([&]() -> absl::StatusOr<std::unique_ptr<Optimizer>> {
    std::erase_if(parameters, [](const NamedTensor& parameter) { return !parameter.trainable; });
    std::vector<at::Tensor> tensors;
    for (const NamedTensor& parameter : parameters) {
      const bool complex = parameter.tensor.is_complex();
      tensors.push_back(complex ? AsReal(parameter.tensor.detach()) : parameter.tensor);
    }
    if (spec.has_sgd()) {
      auto sgd = MakeSgd(spec.sgd(), tensors);
      return Wrap<SgdSlots>(spec, std::move(sgd), std::move(parameters), std::move(tensors), device);
    }
    if (spec.has_adam()) {
      auto adam = MakeAdam<torch::optim::Adam, torch::optim::AdamOptions>(spec.adam(), tensors);
      return Wrap<AdamSlots<torch::optim::AdamParamState>>(spec, std::move(adam), std::move(parameters),
                                                           std::move(tensors), device);
    }
    if (spec.has_adamw()) {
      auto adamw = MakeAdam<torch::optim::AdamW, torch::optim::AdamWOptions>(spec.adamw(), tensors);
      return Wrap<AdamSlots<torch::optim::AdamWParamState>>(spec, std::move(adamw), std::move(parameters),
                                                            std::move(tensors), device);
    }
    return absl::InvalidArgumentError("optimizer: no kind is given");
  });
}

}  // namespace gpipe::worker
