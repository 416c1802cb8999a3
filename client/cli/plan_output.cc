#include <string>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "client/cli/format.h"
#include "client/cli/plan_facts.h"
#include "client/cli/spec_commands.h"

namespace gpipe::client {
namespace {

// `conv_2d, relu, linear x3`: runs of one kind once.
std::string KindsOf(const v1::Plan& plan, const v1::Stage& stage) {
  std::vector<std::pair<std::string, int>> runs;
  for (const v1::LayerInfo* layer : LayersOf(plan, stage)) {
    if (runs.empty() || runs.back().first != layer->kind()) runs.emplace_back(layer->kind(), 0);
    ++runs.back().second;
  }
  return absl::StrJoin(runs, ", ", [](std::string* out, const auto& run) {
    absl::StrAppend(out, run.first);
    if (run.second > 1) absl::StrAppend(out, " x", run.second);
  });
}

// `transformer.wte to transformer.h.3.mlp`: the first and the last module that has a name.
std::string ModulesOf(const v1::Plan& plan, const v1::Stage& stage) {
  std::vector<std::string> modules;
  for (const v1::LayerInfo* layer : LayersOf(plan, stage)) {
    if (!layer->kind().empty()) modules.push_back(layer->kind());
  }
  if (modules.empty()) return "";
  return modules.front() == modules.back() ? modules.front() : absl::StrCat(modules.front(), " to ", modules.back());
}

std::string RangeOf(const v1::Stage& stage) {
  const int last = stage.first_layer() + stage.layer_count() - 1;
  return last == stage.first_layer() ? absl::StrCat(last) : absl::StrCat(stage.first_layer(), "-", last);
}

// Without a forecast neither memory nor time are known; of a job's plan neither parameters nor what it sends.
std::string StagesTable(const v1::PlanJobResponse& response) {
  const v1::Plan& plan = response.plan();
  const bool exported = IsExported(plan), foreseen = !response.forecast().stages().empty(), weighed = IsWeighed(plan);
  std::vector<std::string> header = {">STAGE", ">WORKER", ">LAYERS"};
  if (weighed) header.insert(header.end(), {">PARAMETERS", ">WEIGHTS"});
  if (foreseen) header.insert(header.end(), {">MEMORY", ">PER MICRO-BATCH"});
  if (weighed) header.push_back(">SENDS");
  if (!plan.layers().empty()) header.push_back(exported ? "MODULES" : "KINDS");
  Table table(header);
  for (int i = 0; i < plan.stages_size(); ++i) {
    const v1::Stage& stage = plan.stages(i);
    const StageTotals totals = TotalsOf(plan, i);
    const int worker = WorkerOf(plan, i);
    std::vector<std::string> row = {absl::StrCat(i), worker < 0 ? "" : absl::StrCat(worker), RangeOf(stage)};
    if (weighed) row.insert(row.end(), {FormatCount(totals.parameters), FormatBytes(totals.parameter_bytes)});
    if (foreseen) {
      const v1::StageForecast* forecast = ForecastOf(response, i);
      row.push_back(forecast == nullptr ? "" : FormatBytes(MemoryOf(*forecast)));
      row.push_back(forecast == nullptr ? "" : FormatShortTime(SecondsOf(*forecast)));
    }
    if (weighed) row.push_back(FormatBytes(totals.sent_bytes));
    if (!plan.layers().empty()) row.push_back(exported ? ModulesOf(plan, stage) : KindsOf(plan, stage));
    table.Add(std::move(row));
  }
  return table.Render();
}

std::string EdgesTable(const v1::Plan& plan) {
  if (plan.edges().empty()) return "";
  Table table({"VALUE", "STAGES", "SHAPE", "TYPE", ">PER MICRO-BATCH", "GRADIENT"});
  const bool trains = plan.timeline().steps() > 0;
  for (const v1::Edge& edge : plan.edges()) {
    table.Add({edge.value(), absl::StrCat(edge.from_stage(), " -> ", edge.to_stage(), IsSkip(edge) ? " skip" : ""),
               FormatShape(edge.shape()), FormatDtype(edge.dtype()), FormatBytes(BytesOf(plan, edge)),
               edge.requires_grad() && trains ? "yes" : "no"});
  }
  return absl::StrCat("\n", table.Render());
}

std::string TiedText(const v1::Plan& plan) {
  std::string text;
  for (const TiedTensor& tied : TiedTensors(plan)) {
    absl::StrAppend(&text, "tied: ", absl::StrJoin(tied.names, " = "),
                    tied.stages.size() > 1 ? " on stages " : " on stage ", absl::StrJoin(tied.stages, ", "), "\n");
  }
  return text.empty() ? "" : absl::StrCat("\n", text);
}

std::string ForecastText(const v1::Forecast& forecast) {
  if (forecast.step_seconds() <= 0) return "";
  const std::string bubble =
      forecast.bubble_share() > 0 ? absl::StrCat(", ", FormatPercent(forecast.bubble_share()), " of it bubble") : "";
  return absl::StrCat("predicted ", FormatShortTime(forecast.step_seconds()), " a step", bubble, "\n");
}

}  // namespace

std::string RenderPlan(const v1::PlanJobResponse& response) {
  const v1::Plan& plan = response.plan();
  const v1::Program* program = MainProgram(plan);
  std::string text = absl::StrCat(StagesTable(response), EdgesTable(plan), TiedText(plan), "\n");
  if (program != nullptr) {
    absl::StrAppend(&text, "a mini-batch of ", program->batch_size(), " in ", program->micro_batch_sizes_size(),
                    " micro-batches of ", absl::StrJoin(program->micro_batch_sizes(), " "), ", ", program->cycles(),
                    " clock cycles:\n");
  }
  absl::StrAppend(&text, response.grid(), response.grid().empty() || response.grid().back() == '\n' ? "" : "\n");
  if (program != nullptr) absl::StrAppend(&text, "bubble ", FormatPercent(response.bubble_share()), "\n");
  absl::StrAppend(&text, ForecastText(response.forecast()));
  for (const std::string& note : response.notes()) absl::StrAppend(&text, note, "\n");
  return text;
}

}  // namespace gpipe::client
