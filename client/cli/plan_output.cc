#include <algorithm>
#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "client/cli/format.h"
#include "client/cli/spec_commands.h"
#include "common/plan/shape.h"

namespace gpipe::client {
namespace {

// `conv_2d, relu, linear x3`: runs of one kind once.
std::string KindsOf(const v1::Plan& plan, const v1::Stage& stage) {
  std::vector<std::pair<std::string, int>> runs;
  for (int i = stage.first_layer(); i < stage.first_layer() + stage.layer_count() && i < plan.layers_size(); ++i) {
    const std::string& kind = plan.layers(i).kind();
    if (runs.empty() || runs.back().first != kind) runs.emplace_back(kind, 0);
    ++runs.back().second;
  }
  return absl::StrJoin(runs, ", ", [](std::string* out, const auto& run) {
    absl::StrAppend(out, run.first);
    if (run.second > 1) absl::StrAppend(out, " x", run.second);
  });
}

bool IsExported(const v1::Plan& plan) {
  return std::any_of(plan.layers().begin(), plan.layers().end(),
                     [](const v1::LayerInfo& layer) { return layer.first_node() > 0; });
}

// `transformer.wte to transformer.h.3.mlp`: the first and the last module that has a name.
std::string ModulesOf(const v1::Plan& plan, const v1::Stage& stage) {
  std::vector<std::string> modules;
  for (int i = stage.first_layer(); i < stage.first_layer() + stage.layer_count() && i < plan.layers_size(); ++i) {
    if (!plan.layers(i).kind().empty()) modules.push_back(plan.layers(i).kind());
  }
  if (modules.empty()) return "";
  return modules.front() == modules.back() ? modules.front() : absl::StrCat(modules.front(), " to ", modules.back());
}

// The program that the job spends its time in: the one of the largest mini-batch.
const v1::Program* MainProgram(const v1::Plan& plan) {
  const v1::Program* main = nullptr;
  for (const v1::Program& program : plan.programs()) {
    if (program.kind() == v1::PROGRAM_KIND_EVALUATE) continue;
    if (main == nullptr || program.batch_size() > main->batch_size()) main = &program;
  }
  return main;
}

int64_t LargestMicroBatch(const v1::Program* program) {
  if (program == nullptr || program->micro_batch_sizes().empty()) return 0;
  return *std::max_element(program->micro_batch_sizes().begin(), program->micro_batch_sizes().end());
}

std::string LayersOf(const v1::Stage& stage) {
  const int last = stage.first_layer() + stage.layer_count() - 1;
  return last == stage.first_layer() ? absl::StrCat(last) : absl::StrCat(stage.first_layer(), "-", last);
}

std::string StagesTable(const v1::Plan& plan) {
  const bool exported = IsExported(plan);
  Table table({">STAGE", ">WORKER", ">LAYERS", ">PARAMETERS", ">MEMORY", exported ? "MODULES" : "KINDS"});
  for (int i = 0; i < plan.stages_size(); ++i) {
    const v1::Stage& stage = plan.stages(i);
    int64_t parameters = 0, bytes = 0;
    for (int j = stage.first_layer(); j < stage.first_layer() + stage.layer_count() && j < plan.layers_size(); ++j) {
      parameters += plan.layers(j).parameter_count();
      bytes += plan.layers(j).parameter_bytes();
    }
    table.Add({absl::StrCat(i), i < plan.stage_worker_size() ? absl::StrCat(plan.stage_worker(i)) : "", LayersOf(stage),
               FormatCount(parameters), FormatBytes(bytes), exported ? ModulesOf(plan, stage) : KindsOf(plan, stage)});
  }
  return table.Render();
}

std::string EdgesTable(const v1::Plan& plan, int64_t micro_batch) {
  if (plan.edges().empty()) return "";
  Table table({"VALUE", "STAGES", "SHAPE", "TYPE", ">PER MICRO-BATCH", "GRADIENT"});
  for (const v1::Edge& edge : plan.edges()) {
    table.Add({edge.value(), absl::StrCat(edge.from_stage(), " -> ", edge.to_stage()), FormatShape(edge.shape()),
               FormatDtype(edge.dtype()), FormatBytes(BytesFor(edge.shape(), edge.dtype(), micro_batch)),
               edge.requires_grad() ? "yes" : "no"});
  }
  return absl::StrCat("\n", table.Render());
}

}  // namespace

std::string RenderPlan(const v1::PlanJobResponse& response) {
  const v1::Plan& plan = response.plan();
  const v1::Program* program = MainProgram(plan);
  std::string text = absl::StrCat(StagesTable(plan), EdgesTable(plan, LargestMicroBatch(program)), "\n");
  if (program != nullptr) {
    absl::StrAppend(&text, "a mini-batch of ", program->batch_size(), " in ", program->micro_batch_sizes_size(),
                    " micro-batches of ", absl::StrJoin(program->micro_batch_sizes(), " "), ", ", program->cycles(),
                    " clock cycles:\n");
  }
  absl::StrAppend(&text, response.grid(), response.grid().empty() || response.grid().back() == '\n' ? "" : "\n");
  absl::StrAppend(&text, "bubble ", FormatPercent(response.bubble_share()), "\n");
  if (response.forecast().step_seconds() > 0) {
    absl::StrAppend(&text, "predicted ", FormatSeconds(absl::Seconds(response.forecast().step_seconds())), " a step\n");
  }
  return text;
}

}  // namespace gpipe::client
