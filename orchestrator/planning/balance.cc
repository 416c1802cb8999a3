#include "orchestrator/planning/balance.h"

#include <algorithm>
#include <map>
#include <string>

#include "absl/strings/str_cat.h"
#include "common/plan/convert.h"
#include "orchestrator/planning/fixed_cut.h"
#include "orchestrator/planning/layer_costs.h"
#include "pipeline/partitioner.h"

namespace gpipe::orchestrator {
namespace {

// Forward, backward and recompute of one micro-batch.
double SecondsOf(const v1::JobSpec& spec, const v1::LayerInfo& layer, bool recomputes) {
  if (!spec.has_train()) return layer.forward_nanos() * 1e-9;
  return (layer.forward_nanos() * (recomputes ? 2 : 1) + layer.backward_nanos()) * 1e-9;
}

// What layers make, and the inputs of the model, with the layers that read them.
std::vector<pipeline::LayerValue> ValuesOf(const PlanRequest& request, int64_t samples) {
  const google::protobuf::RepeatedPtrField<v1::ModelValue> data(request.facts.inputs.begin(),
                                                                request.facts.inputs.end());
  const bool training = request.spec.has_train();
  std::vector<pipeline::LayerValue> values;
  std::map<std::string, size_t> index_of;
  for (int i = 0; i < static_cast<int>(request.layers.size()); ++i) {
    for (const std::string& name : request.layers[i].reads()) {
      const auto [found, is_input] = index_of.try_emplace(name, values.size());
      const v1::ModelValue* input = is_input ? DataOf(name, data) : nullptr;
      if (is_input) values.push_back({.read_by = {}, .bytes = input == nullptr ? 0 : ValueBytes(*input, samples)});
      values[found->second].read_by.push_back(i);
    }
    for (const v1::ModelValue& value : request.layers[i].makes()) {
      index_of[value.name()] = values.size();
      const bool has_gradient = training && value.requires_grad();
      values.push_back(
          {.made_by = i, .read_by = {}, .bytes = ValueBytes(value, samples), .has_gradient = has_gradient});
    }
  }
  return values;
}

pipeline::PartitionRequest ProblemOf(const PlanRequest& request) {
  const v1::JobSpec& spec = request.spec;
  const int64_t samples = LargestMicroBatch(spec, request.facts), micro_batches = MicroBatches(spec, request.facts);
  const bool recomputes = Recomputes(spec, micro_batches);
  // With recomputation only the inside of the micro-batch at hand is there.
  const int64_t kept = spec.has_train() && !recomputes ? micro_batches : 1;

  pipeline::PartitionRequest problem;
  for (int worker = 0; worker < request.workers; ++worker) {
    auto& seconds = problem.seconds.emplace_back();
    for (const v1::LayerInfo& layer : ProfileOf(request, worker)) seconds.push_back(SecondsOf(spec, layer, recomputes));
  }
  for (const v1::LayerInfo& layer : ProfileOf(request, 0)) {
    problem.memory_bytes.push_back(StateBytes(spec, layer) + kept * SavedBytes(layer, samples));
  }
  problem.values = ValuesOf(request, samples);
  problem.inputs_held = spec.has_train() ? micro_batches : 1;
  for (const v1::LinkSpeed& link : request.links) problem.links.push_back(FromProto(link));
  problem.memory_limits = request.memory_bytes;
  return problem;
}

}  // namespace

absl::StatusOr<std::vector<int64_t>> Balance(const PlanRequest& request) {
  if (FixedStages(request.spec) > 0) return FixedCut(request.spec, request.layers);
  absl::StatusOr<std::vector<int64_t>> balance = pipeline::Partition(ProblemOf(request));
  if (absl::IsResourceExhausted(balance.status())) {
    return absl::ResourceExhaustedError(absl::StrCat("out of memory: no cut into ", request.workers,
                                                     " stages fits the workers: ", balance.status().message()));
  }
  return balance;
}

bool NeedsMeasuring(const v1::JobSpec& spec, int layers, int workers) {
  return FixedStages(spec) == 0 && workers > 1 && workers < layers;
}

}  // namespace gpipe::orchestrator
