#ifndef GPIPE_WORKER_EXPORTED_BUILD_H_
#define GPIPE_WORKER_EXPORTED_BUILD_H_

#include <c10/core/Device.h>

#include <string>
#include <string_view>
#include <vector>

#include "absl/status/statusor.h"
#include "gpipe/v1/job_spec.pb.h"
#include "gpipe/v1/plan.pb.h"
#include "worker/exported/archive.h"
#include "worker/exported/graph_layer.h"
#include "worker/model/model_layers.h"

namespace gpipe::worker {

class HeldGradients;

// What the stages of one worker are made from; all null and empty with a layer list.
struct ExportedModel {
  const Archive* archive = nullptr;
  TensorPool* tensors = nullptr;  // So that stages of one worker that use the same parameter have the same tensor.
  InitialValues values = InitialValues::kArchive;
  TensorPool* masters = nullptr;  // The same of their masters, by name.
  HeldGradients* held = nullptr;  // Of these stages, which it outlives.
};

// The values that are the model's inputs, in its order; of a layer list, which has no archive, `input`.
std::vector<std::string> InputNames(const Archive* archive);

// The value that is the model's output of that name; its first output, if there is no name.
// INVALID_ARGUMENT for `field`: no such output, with the names there are.
absl::StatusOr<exported::UserOutput> FindOutput(const exported::Program& program, const std::string& name,
                                                std::string_view field);

// The values of the model's outputs that the plan wants, in the order of its last layer's.
absl::StatusOr<std::vector<std::string>> OutputValues(const exported::Program& program, const v1::Plan& plan);

struct ExportedStage {
  int index = 0;
  std::vector<std::string> outputs;  // Values of the model's outputs.
  bool deferred_batch_norm = false;
  c10::Device device = c10::kCPU;
};

// A stage's nodes of an exported program as one layer, with its parameters from the archive.
// REQUIRES: plan.layers are this program's (InspectExported); the plan's stage is within them.
absl::StatusOr<ModelLayer> BuildExported(const ExportedModel& model, const v1::Plan& plan, const ExportedStage& stage);

}  // namespace gpipe::worker

#endif  // GPIPE_WORKER_EXPORTED_BUILD_H_
