#include "worker/model/loss.h"

#include <ATen/ATen.h>
#include <ATen/OpMathType.h>

#include <algorithm>

#include "worker/model/cross_entropy.h"
#include "worker/model/loss_check.h"

namespace gpipe::worker {
namespace {

// A sum of many numbers needs more digits than half a float has.
at::Tensor Wide(const at::Tensor& tensor) { return tensor.to(at::toOpMathType(tensor.scalar_type())); }

class CrossEntropyLoss : public Loss {
 public:
  explicit CrossEntropyLoss(const v1::Loss& spec)
      : spec_(spec),
        options_{.class_dim = spec.cross_entropy().class_dim(),
                 .ignored = spec.cross_entropy().ignore_index(),
                 .smoothing = spec.cross_entropy().label_smoothing()} {}

  // torch divides by the targets that count, with label smoothing too; 0/0 is NaN there as here. Of probabilities all
  // count.
  void Begin(const at::Tensor& target, int64_t) override {
    if (!target.is_floating_point()) {
      count_ = target.to(at::kLong).ne(options_.ignored).sum();
      return;
    }
    const int64_t classes = std::max<int64_t>(target.size(options_.class_dim), 1);
    count_ = at::full({}, target.numel() / classes, target.options().dtype(at::kLong));
  }

  at::Tensor Share(const at::Tensor& output, const at::Tensor& target, int64_t) const override {
    CheckLossFits(spec_, output, target);
    if (!target.is_floating_point()) return CrossEntropy(output, target.to(at::kLong), count_, options_);
    // Where the data has as many numbers as the output, torch's own needs no more memory than is there. It smooths
    // probabilities in their own type.
    return at::cross_entropy_loss(Wide(ClassesSecond(spec_, output)), ClassesSecond(spec_, target), /*weight=*/{},
                                  at::Reduction::Sum, /*ignore_index=*/-100, options_.smoothing) /
           count_;
  }

  at::Tensor Hits(const at::Tensor& output, const at::Tensor& target) const override {
    const bool probabilities = target.is_floating_point();
    return ClassHits(output, probabilities ? target.argmax(options_.class_dim) : target.to(at::kLong), options_);
  }

 private:
  const v1::Loss spec_;
  const CrossEntropyOptions options_;
  at::Tensor count_;  // On the device.
};

// A loss that is a mean over all elements.
class ElementwiseLoss : public Loss {
 public:
  explicit ElementwiseLoss(const v1::Loss& spec) : spec_(spec) {}

  void Begin(const at::Tensor& target, int64_t) override { count_ = static_cast<double>(target.numel()); }

  at::Tensor Share(const at::Tensor& output, const at::Tensor& target, int64_t) const override {
    CheckLossFits(spec_, output, target);
    // In the type that torch promotes both to; its mse_loss has no backward pass for two types.
    const auto type = at::toOpMathType(at::promote_types(output.scalar_type(), target.scalar_type()));
    return Sum(output.to(type), target.to(type)) / count_;
  }

 private:
  at::Tensor Sum(const at::Tensor& output, const at::Tensor& target) const {
    if (spec_.has_mse()) return at::mse_loss(output, target, at::Reduction::Sum);
    return at::binary_cross_entropy_with_logits(output, target, /*weight=*/{}, /*pos_weight=*/{}, at::Reduction::Sum);
  }

  const v1::Loss spec_;
  double count_ = 0;
};

// What the model has computed, as the mean over the samples of a micro-batch.
class MeanOfSamples : public Loss {
 public:
  bool has_target() const override { return false; }

  void Begin(const at::Tensor&, int64_t samples) override { samples_ = static_cast<double>(samples); }

  at::Tensor Share(const at::Tensor& output, const at::Tensor&, int64_t samples) const override {
    return Wide(output.reshape({})) * (static_cast<double>(samples) / samples_);
  }

 private:
  double samples_ = 0;
};

// The same, as something that adds up.
class SumOfModel : public Loss {
 public:
  bool has_target() const override { return false; }
  void Begin(const at::Tensor&, int64_t) override {}
  at::Tensor Share(const at::Tensor& output, const at::Tensor&, int64_t) const override {
    return Wide(output.reshape({}));
  }
};

// The same, as a mean over what another output counts.
class MeanOfCount : public SumOfModel {
 public:
  at::Tensor Count(const at::Tensor&, const at::Tensor& counted) const override {
    return counted.detach().reshape({}).to(at::kDouble);
  }
};

// The same, as a mean over the elements of an input that are not ignored.
class MeanOfTargets : public SumOfModel {
 public:
  explicit MeanOfTargets(const v1::ModelOutput& spec) : spec_(spec) {}

  bool has_target() const override { return true; }
  at::Tensor Count(const at::Tensor& target, const at::Tensor&) const override {
    const int64_t shift = spec_.shift();
    const at::Tensor counts = shift == 0 ? target : target.narrow(1, shift, target.size(1) - shift);
    return counts.ne(spec_.ignore_index()).sum().to(at::kDouble);
  }

 private:
  const v1::ModelOutput spec_;
};

std::unique_ptr<Loss> ModelLoss(const v1::ModelOutput& spec) {
  if (spec.mean_of() == v1::LOSS_MEAN_SUM) return std::make_unique<SumOfModel>();
  if (spec.mean_of() == v1::LOSS_MEAN_COUNT) return std::make_unique<MeanOfCount>();
  if (spec.mean_of() == v1::LOSS_MEAN_TARGETS) return std::make_unique<MeanOfTargets>(spec);
  return std::make_unique<MeanOfSamples>();
}

}  // namespace

std::unique_ptr<Loss> Loss::Create(const v1::Loss& spec) {
  if (spec.has_cross_entropy()) return std::make_unique<CrossEntropyLoss>(spec);
  if (spec.has_model_output()) return ModelLoss(spec.model_output());
  TORCH_CHECK_VALUE(spec.has_mse() || spec.has_bce_with_logits(), "a loss without a kind");
  return std::make_unique<ElementwiseLoss>(spec);
}

}  // namespace gpipe::worker
