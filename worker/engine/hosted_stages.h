#ifndef GPIPE_WORKER_ENGINE_HOSTED_STAGES_H_
#define GPIPE_WORKER_ENGINE_HOSTED_STAGES_H_

#include <c10/core/Device.h>

#include <memory>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "gpipe/v1/worker_session.pb.h"
#include "pipeline/timeline.h"
#include "worker/data/sample_set.h"
#include "worker/exported/archive.h"
#include "worker/stage/held_gradients.h"
#include "worker/stage/stage.h"

namespace gpipe::worker {

// What a client gives or gets under a name, and the value of the plan that it is.
struct ClientValue {
  std::string name;
  std::string value;
  size_t place = 0;  // Of an output: of its value among the last stage's outgoing().
};

// An edge of the plan at one of its stages.
struct EdgeEnd {
  int edge = 0;      // EdgeAt.
  size_t place = 0;  // Of its value among the stage's incoming() or outgoing().
  bool requires_grad = false;
};

// One stage of this worker and where its values go, by their places.
struct HostedStage {
  int index = 0;  // In the plan.
  bool last = false;
  std::vector<std::string> inputs;  // The model's inputs that it reads: the first of incoming().
  std::vector<EdgeEnd> incoming;    // Ends here; by edge, ascending.
  std::vector<EdgeEnd> outgoing;    // Begins here; a value may leave over several edges.
  std::unique_ptr<Stage> stage;
};

// Where a value is among what enters or leaves a stage; their number, if it is not there.
size_t PlaceOf(const std::vector<CrossingValue>& values, const std::string& name);

// The exported model that stages are made of; all null with a layer list.
struct HostedModel {
  const Archive* archive = nullptr;
  const Archive* evaluation = nullptr;  // In evaluation, where the plan has that (HasEvaluation).
  InitialValues values = InitialValues::kArchive;
};

// The stages of one worker, in order. Where the model has another program in evaluation, that is there as well, cut
// into the same stages, with the same live tensors. Used by the engine's thread only.
class HostedStages {
 public:
  // Builds them with their initial weights, unless the model's `values` say that these follow. Errors name the stage.
  static absl::StatusOr<HostedStages> Create(const v1::JobSpec& spec, const v1::Plan& plan, int worker,
                                             c10::Device device, const HostedModel& model);

  // As they are in training, or wherever there is but one program.
  const std::vector<HostedStage>& all() const { return stages_; }
  // As they are in rounds of that kind.
  const std::vector<HostedStage>& In(pipeline::RoundKind kind) const {
    return !pipeline::TraitsOf(kind).trains && !evaluation_.empty() ? evaluation_ : stages_;
  }
  // The stage of this worker that comes first in the plan.
  int first() const { return stages_.front().index; }
  // REQUIRES: the stage is one of this worker's.
  const HostedStage& Find(int index, pipeline::RoundKind kind) const { return In(kind)[index - first()]; }

  const DataRole& role() const { return role_; }
  // The model's input whose elements the loss is a mean over; empty: it is of something else, or not computed here.
  const std::string& counted_input() const { return counted_input_; }
  bool has_last() const { return stages_.back().last; }

  // With client data: the inputs that stages of this worker read, those of which the client gets the gradient, and on
  // the last stage the model's outputs, by value in training, and those of which it gives the gradient.
  const std::vector<ClientValue>& given_inputs() const { return given_inputs_; }
  const std::vector<ClientValue>& made_gradients() const { return made_gradients_; }
  const std::vector<ClientValue>& made_outputs() const { return made_outputs_; }
  const std::vector<ClientValue>& given_gradients() const { return given_gradients_; }

  // Parameters and buffers of all of them, in the order of state_dict().
  std::vector<NamedTensor> State() const;
  // Without copies of what an earlier worker has too: what this one saves.
  std::vector<NamedTensor> OwnState() const;
  std::vector<NamedTensor> TrainableParameters() const;

 private:
  // `inputs` and `outputs` are the values of the model's, in its order.
  void FindClientValues(const v1::Plan& plan, const std::vector<std::string>& inputs,
                        const std::vector<std::string>& outputs);

  std::unique_ptr<HeldGradients> held_ = std::make_unique<HeldGradients>();  // Of all stages.
  std::vector<HostedStage> stages_;
  std::vector<HostedStage> evaluation_;  // Empty: those are for evaluation, too.
  DataRole role_;
  std::string counted_input_;
  std::vector<ClientValue> given_inputs_, made_gradients_, made_outputs_, given_gradients_;
};

}  // namespace gpipe::worker

#endif  // GPIPE_WORKER_ENGINE_HOSTED_STAGES_H_
