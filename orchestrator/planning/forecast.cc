#include "orchestrator/planning/forecast.h"

#include <algorithm>
#include <map>
#include <string>
#include <utility>

#include "absl/strings/str_cat.h"
#include "common/plan/convert.h"
#include "common/plan/shape.h"
#include "orchestrator/planning/kept_memory.h"
#include "orchestrator/planning/layer_costs.h"
#include "pipeline/simulator.h"
#include "pipeline/transfers.h"

namespace gpipe::orchestrator {
namespace {

class Forecaster {
 public:
  Forecaster(const v1::JobSpec& spec, const v1::Plan& plan, const std::vector<v1::LinkSpeed>& links, bool on_gpus)
      : spec_(spec),
        plan_(plan),
        is_captured_(on_gpus && spec.has_train() && spec.pipeline().capture() != v1::CAPTURE_NEVER),
        micro_batches_(plan.programs(0).micro_batch_sizes_size()),
        samples_(plan.programs(0).micro_batch_sizes(0)),  // Larger ones come first.
        edges_(EdgesOf(plan)),
        schedule_(ScheduleOf(plan, plan.programs(0))),
        memory_(KeptMemoryOf(plan.layers(), samples_)) {
    for (const v1::LinkSpeed& link : links) links_.push_back(FromProto(link));
  }

  absl::StatusOr<v1::Forecast> Make() const {
    std::vector<pipeline::StageCost> costs;
    for (int stage = 0; stage < plan_.stages_size(); ++stage) costs.push_back(CostOf(stage));
    std::vector<pipeline::EdgeSeconds> edge_seconds;
    for (const v1::Edge& edge : plan_.edges()) edge_seconds.push_back({SecondsOf(edge, false), SecondsOf(edge, true)});
    absl::StatusOr<pipeline::SimulatedTimeline> timeline = pipeline::Simulate(schedule_, edges_, costs, edge_seconds);
    if (!timeline.ok()) return absl::InternalError(absl::StrCat("the forecast: ", timeline.status().message()));
    return Describe(costs, *timeline);
  }

 private:
  pipeline::StageCost CostOf(int stage) const {
    const v1::Stage& described = plan_.stages(stage);
    pipeline::StageCost cost{.forward = 0, .backward = 0, .recompute = 0, .input_bytes = InputBytes(stage)};
    const bool backward = spec_.has_train() && described.needs_backward();
    for (int i = 0; i < described.layer_count(); ++i) {
      const v1::LayerInfo& layer = plan_.layers(described.first_layer() + i);
      cost.forward += layer.forward_nanos() * 1e-9;
      if (backward) cost.backward += layer.backward_nanos() * 1e-9;
    }
    cost.saved_bytes = SavedBytes(described);
    if (backward && Recomputes(spec_, micro_batches_)) cost.recompute = cost.forward;
    return cost;
  }

  // Of one micro-batch.
  int64_t SavedBytes(const v1::Stage& stage) const {
    pipeline::RunMemory run(memory_);
    run.MoveTo(stage.first_layer() + stage.layer_count());
    return run.Bytes(stage.first_layer()) - WorkingBytes(stage);
  }

  int64_t WorkingBytes(const v1::Stage& stage) const {
    const auto first = memory_.working_bytes.begin() + stage.first_layer();
    return *std::max_element(first, first + stage.layer_count());
  }

  // What CUDA graphs have of each micro-batch in a place of its own, beside the stage's inputs: values that leave, and
  // gradients both ways. A value that leaves over several edges is there once, and so is its gradient.
  int64_t RecordedBytes(int stage) const {
    if (!is_captured_) return 0;
    std::map<std::string, int64_t> left;
    int64_t bytes = 0;
    for (const v1::Edge& edge : plan_.edges()) {
      const int64_t gradient = edge.requires_grad() ? BytesOf(edge) : 0;
      if (edge.to_stage() == stage) bytes += gradient;
      int64_t& known = left[edge.value()];
      if (edge.from_stage() == stage) known = std::max(known, BytesOf(edge) + gradient);
    }
    for (const auto& [value, both] : left) bytes += both;
    return micro_batches_ * bytes;
  }

  int64_t InputBytes(int stage) const {
    int64_t bytes = 0;
    for (const v1::Edge& edge : plan_.edges()) {
      if (edge.to_stage() == stage) bytes += BytesOf(edge);
    }
    for (const std::string& name : plan_.stages(stage).inputs()) {
      const v1::ModelValue* input = DataOf(name, plan_.inputs());
      if (input != nullptr) bytes += ValueBytes(*input, samples_);
    }
    return bytes;
  }

  int64_t BytesOf(const v1::Edge& edge) const { return BytesFor(edge.shape(), edge.dtype(), samples_); }

  // Of all values between two stages, or of their gradients: they are one message.
  int64_t MessageBytes(const v1::Edge& edge, bool gradients) const {
    int64_t bytes = 0;
    for (const v1::Edge& other : plan_.edges()) {
      const bool beside = other.from_stage() == edge.from_stage() && other.to_stage() == edge.to_stage();
      if (beside && (!gradients || other.requires_grad())) bytes += BytesOf(other);
    }
    return bytes;
  }

  // A link that was measured between neighbours says what to expect of longer ways too: no more than the slowest on it.
  double SecondsOf(const v1::Edge& edge, bool gradients) const {
    double seconds = 0;
    const int from = plan_.stage_worker(edge.from_stage()), to = plan_.stage_worker(edge.to_stage());
    for (int link = from; link < std::min<int>(to, static_cast<int>(links_.size())); ++link) {
      seconds = std::max(seconds, links_[link].SecondsFor(MessageBytes(edge, gradients)));
    }
    return seconds;
  }

  int64_t SentBytes(const pipeline::Transfers& transfers, int stage) const {
    int64_t bytes = 0;
    for (const pipeline::KindTraits& traits : pipeline::kKindTraits) {
      if (!pipeline::IsSend(traits.kind)) continue;
      for (const int edge : transfers.Of(stage, traits.kind)) {
        if (transfers.Crosses(edges_[edge], traits.kind)) bytes += BytesOf(plan_.edges(edge));
      }
    }
    return bytes;
  }

  int64_t StateOf(const v1::Stage& stage) const {
    const auto first = plan_.layers().begin() + stage.first_layer();
    const std::vector<v1::LayerInfo> layers(first, first + stage.layer_count());
    int64_t bytes = -RepeatedStateBytes(spec_, layers);
    for (const v1::LayerInfo& layer : layers) bytes += StateBytes(spec_, layer);
    return bytes;
  }

  v1::Forecast Describe(const std::vector<pipeline::StageCost>& costs,
                        const pipeline::SimulatedTimeline& timeline) const {
    v1::Forecast forecast;
    forecast.set_step_seconds(timeline.seconds);
    forecast.set_bubble_share(timeline.bubble_share);
    std::vector<double> busy(costs.size());
    for (const auto& entry : timeline.actions) busy[entry.action.stage] += entry.end - entry.start;
    const pipeline::Transfers transfers(edges_, schedule_);
    for (int i = 0; i < plan_.stages_size(); ++i) {
      v1::StageForecast& stage = *forecast.add_stages();
      stage.set_forward_seconds(costs[i].forward);
      stage.set_backward_seconds(costs[i].backward);
      stage.set_recompute_seconds(costs[i].recompute);
      if (timeline.seconds > 0) stage.set_busy_share(busy[i] / timeline.seconds);
      stage.set_state_bytes(StateOf(plan_.stages(i)));
      stage.set_peak_saved_bytes(timeline.peak_bytes[i]);
      stage.set_working_bytes(WorkingBytes(plan_.stages(i)) + RecordedBytes(i));
      stage.set_sent_bytes(SentBytes(transfers, i));
    }
    return forecast;
  }

  const v1::JobSpec& spec_;
  const v1::Plan& plan_;
  const bool is_captured_;
  const int64_t micro_batches_;
  const int64_t samples_;  // Of the largest micro-batch.
  const std::vector<pipeline::Edge> edges_;
  const pipeline::Schedule schedule_;
  const pipeline::MemoryDemand memory_;  // Of one micro-batch.
  std::vector<pipeline::Link> links_;
};

}  // namespace

bool IsMeasured(const v1::Plan& plan) {
  const auto measured = [](const v1::LayerInfo& layer) { return layer.forward_nanos() > 0; };
  return !plan.programs().empty() && std::any_of(plan.layers().begin(), plan.layers().end(), measured);
}

absl::StatusOr<v1::Forecast> MakeForecast(const v1::JobSpec& spec, const v1::Plan& plan,
                                          const std::vector<v1::LinkSpeed>& links, bool on_gpus) {
  absl::StatusOr<v1::Forecast> forecast = Forecaster(spec, plan, links, on_gpus).Make();
  if (forecast.ok()) forecast->mutable_links()->Assign(links.begin(), links.end());
  return forecast;
}

}  // namespace gpipe::orchestrator
