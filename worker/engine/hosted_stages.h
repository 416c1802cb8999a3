#ifndef GPIPE_WORKER_ENGINE_HOSTED_STAGES_H_
#define GPIPE_WORKER_ENGINE_HOSTED_STAGES_H_

#include <c10/core/Device.h>

#include <memory>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "gpipe/v1/worker_session.pb.h"
#include "worker/data/sample_set.h"
#include "worker/exported/archive.h"
#include "worker/stage/stage.h"

namespace gpipe::worker {

// One stage of this worker and where its values go.
struct HostedStage {
  int index = 0;  // In the plan.
  bool last = false;
  std::vector<std::string> inputs;  // The model's inputs that it reads.
  std::vector<int> incoming;        // Edges of the plan that end here, ascending.
  std::vector<int> outgoing;        // Edges that begin here.
  std::unique_ptr<Stage> stage;
};

// The stages of one worker, in order. Used by the engine's thread only.
class HostedStages {
 public:
  // Builds them with their initial weights, unless `values` says that these follow. `archive` is the exported model's,
  // null with a layer list. Errors name the stage.
  static absl::StatusOr<HostedStages> Create(const v1::JobSpec& spec, const v1::Plan& plan, int worker,
                                             c10::Device device, const Archive* archive,
                                             InitialValues values = InitialValues::kArchive);

  const std::vector<HostedStage>& all() const { return stages_; }
  // REQUIRES: the stage is one of this worker's.
  const HostedStage& Find(int index) const { return stages_[index - stages_.front().index]; }

  const DataRole& role() const { return role_; }
  // The model's input whose elements the loss is a mean over; empty: it is of something else, or not computed here.
  const std::string& counted_input() const { return counted_input_; }
  bool has_last() const { return stages_.back().last; }

  // Parameters and buffers of all of them, in the order of state_dict().
  std::vector<NamedTensor> State() const;
  // Without copies of what an earlier worker has too: what this one saves.
  std::vector<NamedTensor> OwnState() const;
  std::vector<NamedTensor> TrainableParameters() const;

 private:
  std::vector<HostedStage> stages_;
  DataRole role_;
  std::string counted_input_;
};

}  // namespace gpipe::worker

#endif  // GPIPE_WORKER_ENGINE_HOSTED_STAGES_H_
