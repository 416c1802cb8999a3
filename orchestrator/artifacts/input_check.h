#ifndef GPIPE_ORCHESTRATOR_ARTIFACTS_INPUT_CHECK_H_
#define GPIPE_ORCHESTRATOR_ARTIFACTS_INPUT_CHECK_H_

#include <cstdint>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "gpipe/v1/job_spec.pb.h"
#include "gpipe/v1/plan.pb.h"
#include "orchestrator/artifacts/artifact_store.h"
#include "orchestrator/artifacts/shared_data.h"
#include "orchestrator/jobs/stored_job.h"

namespace gpipe::orchestrator {

// What a plan needs to know of a job's data.
struct InputFacts {
  int64_t samples = 0;
  // In training in the order of the spec, in inference by name. Of one without samples (`unbatched`) all sizes are
  // fixed.
  std::vector<v1::ModelValue> inputs;
  // Training only, unless the model computes its loss itself.
  std::vector<int64_t> target_shape;
  v1::DataType target_dtype = v1::DATA_TYPE_UNSPECIFIED;
  // 0 without evaluation.
  int64_t evaluation_samples = 0;
  // Inputs and target as the evaluation data has them, where one has other sizes than the training data: of an exported
  // model, which may take them. Else no inputs.
  std::vector<v1::ModelValue> evaluation_inputs = {};
  std::vector<int64_t> evaluation_target_shape = {};
};

// Checks the data that a spec names, from the headers of the files alone, or what a worker says of `shared` ones, and
// that its weights are a good safetensors file, or a good index of some. Blocking; any thread. REQUIRES: `spec` is
// valid and has its defaults (common/spec/validator.h). INVALID_ARGUMENT lists all that is wrong by field path: a file
// that was not uploaded, a corrupt file, a tensor that is not in it, tensors of unequal batch size, no samples, a type
// that the loss cannot use, an input without samples that is not in one file, evaluation data shaped unlike training
// data where the model is a layer list, drop_last leaving nothing.
absl::StatusOr<InputFacts> CheckInputs(const v1::JobSpec& spec, const FileMap& files, const ArtifactStore& store,
                                       const SharedTables& shared = {});

// Whether the weights that a spec names have all of the model's tensors, in their shapes; floating types may differ
// from the model's, as they are converted when they are loaded, and a tied parameter needs only one of its names. The
// result names what the files have and the model does not, which is left out; with `model.strict` that is an error,
// too. INVALID_ARGUMENT lists all that is wrong. Empty without weights. REQUIRES: CheckInputs is OK; `layers` are the
// spec's.
absl::StatusOr<std::vector<std::string>> CheckWeights(const v1::JobSpec& spec, const FileMap& files,
                                                      const ArtifactStore& store,
                                                      const std::vector<v1::LayerInfo>& layers,
                                                      const SharedTables& shared = {});

// INVALID_ARGUMENT for `model.weights`: the model's file holds no weights, and the spec names none.
absl::Status CheckHasValues(const v1::JobSpec& spec, const std::vector<v1::LayerInfo>& layers);

// Whether a checkpoint to resume from is the model's, with every tensor's very type, and no other tensors. By the field
// `resume`.
absl::Status CheckResume(const CheckpointFiles& checkpoint, const ArtifactStore& store,
                         const std::vector<v1::LayerInfo>& layers);

// Whether the optimizer that goes on can use the state that the checkpoint has of the one before, of which none at all
// is fine, and works in the same precision: INVALID_ARGUMENT for `train.optimizer` and `train.precision`.
absl::Status CheckResumedOptimizer(const v1::Train& train, const CheckpointFiles& checkpoint,
                                   const ArtifactStore& store);

// Whether each of train.freeze begins a tensor's name. For exported models: of a layer list the validator knows the
// names.
absl::Status CheckFrozen(const v1::JobSpec& spec, const std::vector<v1::LayerInfo>& layers);

// With cross_entropy: reads all numbers of classes that the client sent, of the evaluation data too, in pieces, and
// some tokens. INVALID_ARGUMENT names the first sample whose class is neither in [0, classes) nor ignore_index, or
// made-up data with more classes than the output. Targets that are not looked at here are by the workers that read
// them. OK for other losses and inference. REQUIRES: CheckInputs is OK; `classes` is dimension 1 of the model's output,
// the batch being 0.
absl::Status CheckTargets(const v1::JobSpec& spec, const FileMap& files, const ArtifactStore& store, int64_t classes,
                          const SharedTables& shared = {});

}  // namespace gpipe::orchestrator

#endif  // GPIPE_ORCHESTRATOR_ARTIFACTS_INPUT_CHECK_H_
