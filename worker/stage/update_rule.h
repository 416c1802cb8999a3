#ifndef GPIPE_WORKER_STAGE_UPDATE_RULE_H_
#define GPIPE_WORKER_STAGE_UPDATE_RULE_H_

#include <ATen/core/Tensor.h>

#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "gpipe/v1/job_spec.pb.h"

namespace gpipe::worker {

// Some parameters that are updated together: real numbers, of one type, on one device. All lists have one length;
// gradients and slots lie in memory as their parameters do.
struct UpdateBatch {
  std::vector<at::Tensor> parameters;
  std::vector<at::Tensor> gradients;
  std::vector<std::vector<at::Tensor>> slots;  // By slot of the rule, then by parameter.
  bool first = false;                          // Their first update.
  // Where gradients are scaled, float scalars on the device: by what, and 1 for leaving this update out, else 0.
  std::optional<at::Tensor> grad_scale = {}, overflow = {};
};

// How an optimizer changes parameters: torch.optim's fused kernels, which compute bfloat16 and float16 in float32 and
// need a launch for many parameters. On CUDA nothing waits for the device. Errors are exceptions. Stateless.
class UpdateRule {
 public:
  // REQUIRES: spec::WithDefaults. Throws c10::ValueError for an optimizer without a kind.
  static std::unique_ptr<UpdateRule> Create(const v1::Optimizer& spec);
  virtual ~UpdateRule() = default;

  // What is kept of each parameter, by torch.optim's names; `step`, where there is one, is a float scalar.
  virtual std::vector<std::string> slots() const = 0;
  // Their values before the first update of a parameter, in that order.
  virtual std::vector<at::Tensor> NewSlots(const at::Tensor& parameter) const = 0;
  virtual void Update(UpdateBatch& batch, double lr) const = 0;
};

}  // namespace gpipe::worker

#endif  // GPIPE_WORKER_STAGE_UPDATE_RULE_H_
