#ifndef GPIPE_WORKER_STAGE_MIXED_STATE_H_
#define GPIPE_WORKER_STAGE_MIXED_STATE_H_

#include <string>
#include <vector>

#include "absl/status/status.h"
#include "worker/model/precision.h"
#include "worker/stage/loss_scale.h"
#include "worker/stage/stage.h"

namespace gpipe::worker {

// What mixed precision adds to an optimizer's state in a checkpoint. Masters, where the model's files do not hold them:
// `0.weight/master`. And once in a checkpoint what the loss is multiplied by, under the name of the precision, of which
// the orchestrator knows what was trained in (optimizer_check.cc): `precision/bf16`, which is 1, or `precision/fp16`
// and `precision/good_steps`. Without mixed precision nothing. Used by the engine's thread only.
class MixedState {
 public:
  struct Options {
    Precision precision = {};
    LossScale* loss_scale = nullptr;  // Of fp16; outlives this.
    bool saves_scale = true;          // One worker does, for all.
  };

  // `parameters` are those that are trained.
  MixedState(const Options& options, const std::vector<NamedTensor>& parameters);

  // Live tensors by these names, without those of parameters that another worker saves.
  std::vector<NamedTensor> State() const;

  // The names Load looks for, and what it takes. NOT_FOUND or INVALID_ARGUMENT names the tensor that is missing, or not
  // like the live one. What is computed with is rounded anew.
  std::vector<std::string> Names() const;
  absl::Status Load(const Values& state);

 private:
  std::vector<NamedTensor> Scale() const;

  const Options options_;
  std::vector<NamedTensor> rounded_;  // Parameters whose masters are saved here.
};

}  // namespace gpipe::worker

#endif  // GPIPE_WORKER_STAGE_MIXED_STATE_H_
