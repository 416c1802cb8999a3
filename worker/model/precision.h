#ifndef GPIPE_WORKER_MODEL_PRECISION_H_
#define GPIPE_WORKER_MODEL_PRECISION_H_

#include <c10/core/ScalarType.h>

#include "gpipe/v1/job_spec.pb.h"

namespace gpipe::worker {

// What a job computes in, and what it keeps beside that (train.precision). In mixed precision a parameter of the type
// that is computed in is the rounding of a master; its gradients are added up, and the optimizer works, in the master's
// type. Parameters of other types, such as a batch norm's, are what they are in any precision.
struct Precision {
  // Undefined: not mixed, and the types are the model's own. Else a layer list's parameters and floating inputs are
  // cast to this type, and an exported model's parameters of this type get masters.
  c10::ScalarType compute = c10::ScalarType::Undefined;
  // A layer list is a model of fp32 whatever it computes in, so its files hold the masters. The files of an exported
  // model hold what its program takes; of a checkpoint the masters are then part of the optimizer's state.
  bool files_hold_masters = false;

  // Of masters, and of the sums of gradients.
  static constexpr c10::ScalarType kMaster = c10::ScalarType::Float;

  static Precision Of(v1::Precision precision, bool layer_list);
  // Without training it is not mixed.
  static Precision Of(const v1::JobSpec& spec);

  bool mixed() const { return compute != c10::ScalarType::Undefined; }
  // So that small gradients are not rounded to zero (loss_scale.h).
  bool scales_loss() const { return compute == c10::ScalarType::Half; }
  // Whether an exported model's parameter of this type has a master, if it is trained.
  bool has_master(c10::ScalarType type) const { return mixed() && type == compute; }
};

}  // namespace gpipe::worker

#endif  // GPIPE_WORKER_MODEL_PRECISION_H_
