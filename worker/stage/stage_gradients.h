#ifndef GPIPE_WORKER_STAGE_STAGE_GRADIENTS_H_
#define GPIPE_WORKER_STAGE_STAGE_GRADIENTS_H_

#include <vector>

#include "worker/stage/held_gradients.h"
#include "worker/stage/stage.h"

namespace gpipe::worker {

// The gradients of one stage's parameters, whose contract is in Stage: KeepGradients, AttachGradients. Used by the
// engine's thread.
class StageGradients {
 public:
  // `held` is of all stages of the worker, and outlives this; null: of this one.
  explicit StageGradients(HeldGradients* held) : held_(held != nullptr ? *held : own_) {}

  void Keep(const std::vector<NamedTensor>& state, bool keep);
  void Attach(const std::vector<NamedTensor>& state) const;
  // Those that somebody keeps are zero, the others gone.
  void Reset(const std::vector<NamedTensor>& state) const;

 private:
  HeldGradients own_;
  HeldGradients& held_;
  bool keep_ = false;
};

}  // namespace gpipe::worker

#endif  // GPIPE_WORKER_STAGE_STAGE_GRADIENTS_H_
