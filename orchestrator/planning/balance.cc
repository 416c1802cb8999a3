#include "orchestrator/planning/balance.h"

#include <algorithm>
#include <functional>
#include <map>
#include <span>
#include <string>
#include <utility>

#include "absl/functional/function_ref.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "common/plan/convert.h"
#include "common/status_macros.h"
#include "orchestrator/planning/fixed_cut.h"
#include "orchestrator/planning/kept_memory.h"
#include "orchestrator/planning/layer_costs.h"
#include "orchestrator/planning/pass_balance.h"
#include "pipeline/crossing_bytes.h"
#include "pipeline/partitioner.h"

namespace gpipe::orchestrator {
namespace {

double ForwardSeconds(const v1::LayerInfo& layer) { return layer.forward_nanos() * 1e-9; }

// With what is computed again.
double BackwardSeconds(const v1::JobSpec& spec, const v1::LayerInfo& layer, bool recomputes) {
  if (!spec.has_train()) return 0;
  return (layer.backward_nanos() + (recomputes ? layer.forward_nanos() : 0)) * 1e-9;
}

// Of each layer, on each worker.
std::vector<std::vector<double>> ByWorker(const PlanRequest& request,
                                          absl::FunctionRef<double(const v1::LayerInfo&)> seconds_of) {
  std::vector<std::vector<double>> seconds;
  for (int worker = 0; worker < request.workers; ++worker) {
    auto& of_worker = seconds.emplace_back();
    for (const v1::LayerInfo& layer : ProfileOf(request, worker)) of_worker.push_back(seconds_of(layer));
  }
  return seconds;
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

// With what is kept of so many micro-batches.
pipeline::MemoryDemand MemoryOf(const PlanRequest& request, int64_t samples, int64_t micro_batches) {
  const std::vector<v1::LayerInfo>& layers = ProfileOf(request, 0);
  pipeline::MemoryDemand demand = KeptMemoryOf(layers, samples);
  for (size_t i = 0; i < layers.size(); ++i) {
    demand.layer_bytes[i] = StateBytes(request.spec, layers[i]) + micro_batches * demand.layer_bytes[i];
  }
  for (pipeline::KeptMemory& memory : demand.kept) memory.bytes *= micro_batches;
  return demand;
}

pipeline::PartitionRequest ProblemOf(const PlanRequest& request) {
  const v1::JobSpec& spec = request.spec;
  const int64_t samples = LargestMicroBatch(spec, request.facts), micro_batches = MicroBatches(spec, request.facts);
  const bool recomputes = Recomputes(spec, micro_batches);
  // With recomputation only the inside of the micro-batch at hand is there.
  const int64_t kept = spec.has_train() && !recomputes ? micro_batches : 1;

  pipeline::PartitionRequest problem;
  problem.seconds = ByWorker(request, [&](const v1::LayerInfo& layer) {
    return ForwardSeconds(layer) + BackwardSeconds(spec, layer, recomputes);
  });
  problem.memory = MemoryOf(request, samples, kept);
  problem.values = ValuesOf(request, samples);
  problem.inputs_held = spec.has_train() ? micro_batches : 1;
  for (const v1::LinkSpeed& link : request.links) problem.links.push_back(FromProto(link));
  problem.memory_limits = request.memory_bytes;
  return problem;
}

// Bytes that each stage sends, as Partition counts them: values on, and gradients back.
struct Sends {
  std::vector<int64_t> values, gradients;
};

Sends SendsOf(const pipeline::PartitionRequest& problem, const std::vector<int64_t>& balance) {
  pipeline::CrossingBytes crossing(problem.values, problem.memory.layer_bytes.size());
  Sends sends;
  size_t begin = 0;
  for (const int64_t layers : balance) {
    const size_t end = begin + static_cast<size_t>(layers);
    crossing.MoveTo(end);
    sends.values.push_back(crossing.Out(begin));
    sends.gradients.push_back(crossing.Gradients(begin));
    begin = end;
  }
  return sends;
}

StepSeconds SecondsOf(const PlanRequest& request, const pipeline::PartitionRequest& problem, const Sends& sends) {
  const bool recomputes = Recomputes(request.spec, MicroBatches(request.spec, request.facts));
  StepSeconds step;
  step.forward.layers = ByWorker(request, ForwardSeconds);
  step.backward.layers =
      ByWorker(request, [&](const v1::LayerInfo& layer) { return BackwardSeconds(request.spec, layer, recomputes); });
  step.forward.sending.resize(request.workers);
  step.backward.sending.resize(request.workers);
  for (size_t i = 0; i < problem.links.size(); ++i) {
    step.forward.sending[i] = problem.links[i].SecondsFor(sends.values[i]);
    step.backward.sending[i + 1] = problem.links[i].SecondsFor(sends.gradients[i + 1]);
  }
  return step;
}

// Whether all workers can hold the cut, and no stage sends more.
bool IsNoWorse(const pipeline::PartitionRequest& problem, const std::vector<int64_t>& cut, const Sends& before) {
  const Sends sends = SendsOf(problem, cut);
  if (!std::ranges::equal(sends.values, before.values, std::less_equal<>()) ||
      !std::ranges::equal(sends.gradients, before.gradients, std::less_equal<>())) {
    return false;
  }
  if (problem.memory_limits.empty()) return true;
  return std::ranges::equal(pipeline::RunBytes(problem, cut), problem.memory_limits,
                            [](int64_t bytes, int64_t limit) { return limit == 0 || bytes <= limit; });
}

// The stages of one worker, by their numbers and their layers'.
struct Run {
  int first_stage = 0, last_stage = 0;
  int64_t first_layer = 0, layers = 0;
};

// One per worker.
std::vector<Run> RunsOf(const std::vector<int64_t>& balance, int workers) {
  const int stages = static_cast<int>(balance.size());
  std::vector<Run> runs(workers);
  int64_t layer = 0;
  for (int stage = 0; stage < stages; ++stage) {
    Run& run = runs[WorkerOf(stage, stages, workers)];
    if (run.layers == 0) run = {.first_stage = stage, .first_layer = layer};
    run.last_stage = stage;
    run.layers += balance[stage];
    layer += balance[stage];
  }
  return runs;
}

std::string Described(const Run& run) {
  const bool one = run.first_stage == run.last_stage;
  return absl::StrCat(
      one ? absl::StrCat("stage ", run.first_stage) : absl::StrCat("stages ", run.first_stage, " to ", run.last_stage),
      " (layers ", run.first_layer, " to ", run.first_layer + run.layers - 1, ")", one ? " needs " : " together need ");
}

// What the owner of a job can do whose own cut does not fit.
std::string WhatFits(pipeline::PartitionRequest problem) {
  // Filled as evenly as they can be; of layers that were not measured nobody knows the time.
  const std::vector<int64_t>& bytes = problem.memory.layer_bytes;
  for (auto& seconds : problem.seconds) seconds.assign(bytes.begin(), bytes.end());
  problem.links.clear();
  const absl::StatusOr<std::vector<int64_t>> other = pipeline::Partition(problem);
  if (other.ok()) return absl::StrCat("these workers can hold pipeline.balance: [", absl::StrJoin(*other, ", "), "]");
  return absl::StrCat("no cut for ", problem.seconds.size(),
                      " such workers fits: cut it into more stages, on more workers, or use workers with more memory");
}

// Bytes that each worker needs for its run of layers.
std::vector<int64_t> BytesOf(const PlanRequest& request, const pipeline::PartitionRequest& problem,
                             const std::vector<Run>& runs) {
  std::vector<int64_t> layers;
  for (const Run& run : runs) layers.push_back(run.layers);
  std::vector<int64_t> bytes = pipeline::RunBytes(problem, layers);
  for (size_t i = 0; i < runs.size(); ++i) {
    bytes[i] -= RepeatedStateBytes(request.spec, std::span(request.layers).subspan(runs[i].first_layer, layers[i]));
  }
  return bytes;
}

// Whether the workers can hold a cut that is given. Of layers that were not measured it is known at least what their
// parameters take.
absl::Status CheckMemory(const PlanRequest& request, const std::vector<int64_t>& balance) {
  if (request.memory_bytes.empty()) return absl::OkStatus();
  const bool measured = !request.profiles.empty();
  pipeline::PartitionRequest problem = ProblemOf(request);
  if (!measured) problem.inputs_held = 0;
  const std::vector<Run> runs = RunsOf(balance, request.workers);
  const std::vector<int64_t> bytes = BytesOf(request, problem, runs);
  for (size_t worker = 0; worker < runs.size(); ++worker) {
    const int64_t limit = request.memory_bytes[worker];
    if (limit == 0 || bytes[worker] <= limit) continue;
    return absl::ResourceExhaustedError(absl::StrCat(
        "out of memory: ", Described(runs[worker]), bytes[worker], " bytes for weights",
        request.spec.has_train() ? ", gradients and optimizer state" : "", measured ? " and what is saved" : "",
        ", and worker ", worker, " can take ", limit, "; ", WhatFits(std::move(problem))));
  }
  return absl::OkStatus();
}

}  // namespace

absl::StatusOr<std::vector<int64_t>> Balance(const PlanRequest& request) {
  if (FixedStages(request.spec) > 0) {
    GPIPE_ASSIGN_OR_RETURN(std::vector<int64_t> given, FixedCut(request.spec, request.layers));
    GPIPE_RETURN_IF_ERROR(CheckMemory(request, given));
    return given;
  }
  const pipeline::PartitionRequest problem = ProblemOf(request);
  const absl::StatusOr<std::vector<int64_t>> balance = pipeline::Partition(problem);
  if (absl::IsResourceExhausted(balance.status())) {
    return absl::ResourceExhaustedError(absl::StrCat("out of memory: no cut into ", request.workers,
                                                     " stages fits the workers: ", balance.status().message()));
  }
  if (!balance.ok() || !request.spec.has_train()) return balance;
  const Sends sends = SendsOf(problem, *balance);
  return BalancePasses(SecondsOf(request, problem, sends), *balance,
                       [&](const std::vector<int64_t>& cut) { return IsNoWorse(problem, cut, sends); });
}

double SecondsPerMicroBatch(const PlanRequest& request, const std::vector<int64_t>& balance) {
  const pipeline::PartitionRequest problem = ProblemOf(request);
  return SlowestPasses(SecondsOf(request, problem, SendsOf(problem, balance)), balance);
}

bool NeedsMeasuring(const v1::JobSpec& spec, int layers, int workers) {
  return FixedStages(spec) == 0 && workers > 1 && workers < layers;
}

}  // namespace gpipe::orchestrator
