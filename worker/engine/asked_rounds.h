#ifndef GPIPE_WORKER_ENGINE_ASKED_ROUNDS_H_
#define GPIPE_WORKER_ENGINE_ASKED_ROUNDS_H_

#include <functional>
#include <optional>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "gpipe/v1/worker_session.pb.h"
#include "worker/data/client_exchange.h"
#include "worker/data/data_source.h"
#include "worker/engine/hosted_stages.h"
#include "worker/engine/round_plan.h"
#include "worker/stage/optimizer.h"

namespace gpipe::worker {

// What a client's rounds read, make, and do beside running a program. Used by the engine's thread only.
class AskedRounds {
 public:
  // All outlive this. `aliases`: the other names of a tensor of the model.
  struct Parts {
    HostedStages& stages;
    Optimizer& optimizer;
    ClientExchange& exchange;
    c10::Device device;
    std::function<std::vector<std::string>(const std::string& name)> aliases;
  };
  explicit AskedRounds(Parts parts) : parts_(std::move(parts)) {}

  // What this worker reads for a round that runs a program: inputs of the model, or gradients of its outputs.
  // INVALID_ARGUMENT names what is missing, or has another number of samples.
  absl::StatusOr<Batch> Read(const RoundPlan& plan);

  // Does a round that runs none. Nullopt: nothing was made.
  absl::StatusOr<std::optional<v1::ArtifactRef>> Do(const RoundPlan& plan);

  // What a program made for the client, on the CPU.
  absl::StatusOr<v1::ArtifactRef> Give(const RoundPlan& plan, const Values& made);

 private:
  absl::Status ZeroGradients();
  absl::Status Drop(int64_t forward);
  absl::StatusOr<std::optional<v1::ArtifactRef>> GetState(const RoundPlan& plan);
  absl::Status SetState(const RoundPlan& plan);
  // What this worker answers for.
  absl::StatusOr<std::vector<NamedTensor>> StateOf(v1::StateKind kind) const;
  std::vector<NamedTensor> OptimizerState() const;
  // What SetState looks for in the client's file.
  std::vector<std::string> NamesOf(v1::StateKind kind) const;
  absl::Status SetValues(const Values& given);
  absl::Status SetGradients(const Values& given);
  absl::Status SetOptimizer(const Values& given);
  // The names under which the client may have a tensor of this kind, but for its own name.
  std::vector<std::string> OtherNames(v1::StateKind kind, const std::string& name) const;
  // A tensor of the file, under any of its names.
  const at::Tensor* Find(const Values& given, v1::StateKind kind, const std::string& name) const;

  const Parts parts_;
};

}  // namespace gpipe::worker

#endif  // GPIPE_WORKER_ENGINE_ASKED_ROUNDS_H_
