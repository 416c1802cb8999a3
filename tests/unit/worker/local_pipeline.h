#ifndef GPIPE_TESTS_UNIT_WORKER_LOCAL_PIPELINE_H_
#define GPIPE_TESTS_UNIT_WORKER_LOCAL_PIPELINE_H_

#include <map>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "gpipe/v1/job_spec.pb.h"
#include "gpipe/v1/plan.pb.h"
#include "worker/stage/stage.h"

namespace gpipe::worker {

// A job spec out of YAML, with defaults.
v1::JobSpec ParseSpec(const std::string& yaml);

// A spec of twelve layers of many kinds, with a skip, for inputs of [2, 8, 8] and five classes; `pipeline` is in YAML:
// `{capture: never}`.
v1::JobSpec MixedNetwork(const std::string& dropout, const std::string& pipeline);

// The plan of a cut: stages and edges, with layers counted from `balance`.
v1::Plan PlanOf(const v1::JobSpec& spec, const std::vector<int>& balance);

// The stages of one model in one process, driven as an engine would, in GPipe's order.
class LocalPipeline {
 public:
  LocalPipeline(const v1::JobSpec& spec, const std::vector<int>& balance, c10::Device device = c10::kCPU);

  std::vector<std::unique_ptr<Stage>>& stages() { return stages_; }
  // All stages' parameters and buffers by name.
  Values State() const;
  Values Gradients() const;

  // Of the mini-batches that follow (MiniBatch::loss_scale).
  void SetLossScale(at::Tensor scale) { loss_scale_ = std::move(scale); }

  // Forward and backward of one mini-batch; micro-batches before `checkpointed` are recomputed. Returns the loss.
  at::Tensor Train(const at::Tensor& input, const at::Tensor& target, const std::vector<int64_t>& sizes,
                   int checkpointed = 0, int64_t step = 0);

  // The last stage's values summed (`loss`, `correct`) or joined (`output`) over the micro-batches.
  Values Evaluate(const at::Tensor& input, const at::Tensor& target, const std::vector<int64_t>& sizes);

 private:
  Values Forward(int micro_batch, const at::Tensor& input, ForwardMode mode);
  void Backward(int micro_batch, bool recompute);

  v1::Plan plan_;
  at::Tensor loss_scale_;
  std::vector<std::unique_ptr<Stage>> stages_;
};

}  // namespace gpipe::worker

#endif  // GPIPE_TESTS_UNIT_WORKER_LOCAL_PIPELINE_H_
