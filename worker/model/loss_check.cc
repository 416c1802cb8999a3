#include "worker/model/loss_check.h"

#include <ATen/ATen.h>
#include <c10/util/Exception.h>

#include "common/spec/target_types.h"
#include "worker/data/tensor_file.h"
#include "worker/model/checks.h"

namespace gpipe::worker {
namespace {

// `output` has its classes second, `target` as the data has it.
void CheckClasses(const v1::Loss& loss, const at::Tensor& output, const at::Tensor& target) {
  std::vector<int64_t> expected = output.sizes().vec();
  TORCH_CHECK_VALUE(expected.size() >= 2, "cross_entropy expects an output [N, classes, ...], gets ",
                    ShapeText(output));
  if (target.is_floating_point()) {
    const bool fits = target.dim() == output.dim() && ClassesSecond(loss, target).sizes() == output.sizes();
    TORCH_CHECK_VALUE(fits, "cross_entropy expects targets that are probabilities of classes to have the output's ",
                      "shape, gets ", ShapeText(output), " and ", ShapeText(target),
                      "; numbers of classes, [N, ...], would be int64 or uint8");
    return;
  }
  expected.erase(expected.begin() + 1);
  TORCH_CHECK_VALUE(target.sizes() == at::IntArrayRef(expected), "cross_entropy expects an output [N, classes, ...] ",
                    "and a target [N, ...], gets ", ShapeText(output), " and ", ShapeText(target));
}

void CheckSame(const char* loss, const at::Tensor& output, const at::Tensor& target) {
  TORCH_CHECK_VALUE(target.sizes() == output.sizes(), loss, " expects an output and a target of one shape, gets ",
                    ShapeText(output), " and ", ShapeText(target));
}

void CheckTargetType(const v1::Loss& loss, const at::Tensor& target) {
  const std::string problem = spec::ProblemWithTarget(loss, ToDataType(target.scalar_type()));
  TORCH_CHECK_VALUE(problem.empty(), problem);
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
  if (!loss.has_model_output()) CheckTargetType(loss, target);
  switch (loss.kind_case()) {
    case v1::Loss::kCrossEntropy:
      return CheckClasses(loss, ClassesSecond(loss, output), target);
    case v1::Loss::kMse:
      return CheckSame("mse", output, target);
    case v1::Loss::kBceWithLogits:
      return CheckSame("bce_with_logits", output, target);
    case v1::Loss::kModelOutput:
      return CheckScalar(output);
    case v1::Loss::kClient:  // Which computes it.
    case v1::Loss::KIND_NOT_SET:
      break;
  }
  TORCH_CHECK_VALUE(false, "a loss without a kind");
}

}  // namespace gpipe::worker
