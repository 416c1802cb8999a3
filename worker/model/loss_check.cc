#include "worker/model/loss_check.h"

#include <ATen/ATen.h>
#include <c10/util/Exception.h>

#include "worker/model/checks.h"

namespace gpipe::worker {
namespace {

void CheckClasses(const at::Tensor& output, const at::Tensor& target) {
  TORCH_CHECK_VALUE(target.scalar_type() == at::kLong, "cross_entropy expects an int64 target, gets ",
                    target.scalar_type(), ' ', ShapeText(target));
  std::vector<int64_t> expected = output.sizes().vec();
  TORCH_CHECK_VALUE(expected.size() >= 2, "cross_entropy expects an output [N, classes, ...], gets ",
                    ShapeText(output));
  expected.erase(expected.begin() + 1);
  TORCH_CHECK_VALUE(target.sizes() == at::IntArrayRef(expected), "cross_entropy expects an output [N, classes, ...] ",
                    "and a target [N, ...], gets ", ShapeText(output), " and ", ShapeText(target));
}

void CheckSame(const char* loss, const at::Tensor& output, const at::Tensor& target) {
  TORCH_CHECK_VALUE(target.sizes() == output.sizes() && target.scalar_type() == output.scalar_type(), loss,
                    " expects an output and a target of one shape and type, gets ", output.scalar_type(), ' ',
                    ShapeText(output), " and ", target.scalar_type(), ' ', ShapeText(target));
}

void CheckScalar(const at::Tensor& output) {
  TORCH_CHECK_VALUE(output.numel() == 1, "model_output expects the model's output to be one number, gets ",
                    ShapeText(output));
}

}  // namespace

at::Tensor ClassesSecond(const v1::Loss& loss, const at::Tensor& output) {
  const int64_t dim = loss.cross_entropy().class_dim();
  return loss.has_cross_entropy() && dim != 1 ? output.movedim(dim, 1) : output;
}

void CheckLossFits(const v1::Loss& loss, const at::Tensor& output, const at::Tensor& target) {
  CheckFloating(output);
  switch (loss.kind_case()) {
    case v1::Loss::kCrossEntropy:
      return CheckClasses(output, target);
    case v1::Loss::kMse:
      return CheckSame("mse", output, target);
    case v1::Loss::kBceWithLogits:
      return CheckSame("bce_with_logits", output, target);
    case v1::Loss::kModelOutput:
      return CheckScalar(output);
    case v1::Loss::KIND_NOT_SET:
      break;
  }
  TORCH_CHECK_VALUE(false, "a loss without a kind");
}

}  // namespace gpipe::worker
