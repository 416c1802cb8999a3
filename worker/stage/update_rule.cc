#include "worker/stage/update_rule.h"

#include <ATen/ATen.h>

namespace gpipe::worker {
namespace {

class SgdRule : public UpdateRule {
 public:
  explicit SgdRule(const v1::Sgd& spec) : spec_(spec) {}

  std::vector<std::string> slots() const override {
    if (spec_.momentum() == 0) return {};
    return {"momentum_buffer"};
  }

  // The first update fills it. Where that is left out, the next one does all the same: with no dampening, which
  // check_train.cc has seen to, a momentum of zeros is as good as none.
  std::vector<at::Tensor> NewSlots(const at::Tensor& parameter) const override {
    if (spec_.momentum() == 0) return {};
    return {at::zeros_like(parameter)};
  }

  void Update(UpdateBatch& batch, double lr) const override {
    const std::vector<at::Tensor> none;
    at::_fused_sgd_(batch.parameters, batch.gradients, batch.slots.empty() ? none : batch.slots[0],
                    spec_.weight_decay(), spec_.momentum(), lr, spec_.dampening(), spec_.nesterov(), /*maximize=*/false,
                    batch.first, batch.grad_scale, batch.overflow);
  }

 private:
  const v1::Sgd spec_;
};

class AdamRule : public UpdateRule {
 public:
  // `decoupled`: the weight decay of AdamW.
  AdamRule(const v1::Adam& spec, bool decoupled) : spec_(spec), decoupled_(decoupled) {
    TORCH_CHECK_VALUE(spec.betas_size() == 2, "optimizer: expects two betas, gets ", spec.betas_size());
  }

  std::vector<std::string> slots() const override { return {"exp_avg", "exp_avg_sq", "step"}; }

  std::vector<at::Tensor> NewSlots(const at::Tensor& parameter) const override {
    return {at::zeros_like(parameter), at::zeros_like(parameter), at::zeros({}, parameter.options().dtype(at::kFloat))};
  }

  void Update(UpdateBatch& batch, double lr) const override {
    at::_foreach_add_(batch.slots[2], 1);
    const auto update = [&](auto kernel) {
      kernel(batch.parameters, batch.gradients, batch.slots[0], batch.slots[1], /*max_exp_avg_sqs=*/at::TensorList(),
             batch.slots[2], lr, spec_.betas(0), spec_.betas(1), spec_.weight_decay(), spec_.eps(), /*amsgrad=*/false,
             /*maximize=*/false, batch.grad_scale, batch.overflow);
    };
    decoupled_ ? update(at::_ops::_fused_adamw_::call) : update(at::_ops::_fused_adam_::call);
    if (batch.overflow)
      at::_foreach_sub_(batch.slots[2], std::vector<at::Tensor>(batch.slots[2].size(), *batch.overflow));
  }

 private:
  const v1::Adam spec_;
  const bool decoupled_;
};

}  // namespace

std::unique_ptr<UpdateRule> UpdateRule::Create(const v1::Optimizer& spec) {
  if (spec.has_sgd()) return std::make_unique<SgdRule>(spec.sgd());
  TORCH_CHECK_VALUE(spec.has_adam() || spec.has_adamw(), "optimizer: no kind is given");
  return std::make_unique<AdamRule>(spec.has_adam() ? spec.adam() : spec.adamw(), spec.has_adamw());
}

}  // namespace gpipe::worker
