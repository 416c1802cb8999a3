#include "worker/exported/build.h"

#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "common/field_error.h"
#include "common/status_macros.h"
#include "worker/exported/graph_layer.h"
#include "worker/exported/units.h"

namespace gpipe::worker {

std::vector<std::string> InputNames(const Archive* archive) {
  if (archive == nullptr) return {"input"};
  std::vector<std::string> names;
  for (const exported::UserInput& input : archive->program().user_inputs) names.push_back(input.value);
  return names;
}

absl::StatusOr<exported::UserOutput> FindOutput(const exported::Program& program, const std::string& name,
                                                std::string_view field) {
  std::vector<std::string> names;
  for (const exported::UserOutput& output : program.user_outputs) {
    if (!std::holds_alternative<exported::ValueName>(output.value.value)) continue;
    if (name.empty() || output.name == name) return output;
    names.push_back(output.name);
  }
  return FieldError(field, absl::StrCat("the model has no output '", name, "'; it has: ", absl::StrJoin(names, ", ")));
}

absl::StatusOr<std::vector<std::string>> OutputValues(const exported::Program& program, const v1::Plan& plan) {
  std::vector<std::string> values;
  for (const v1::ModelValue& output : plan.layers(plan.layers_size() - 1).outputs()) {
    GPIPE_ASSIGN_OR_RETURN(const exported::UserOutput found, FindOutput(program, output.name(), "plan.layers.outputs"));
    values.push_back(std::get<exported::ValueName>(found.value.value).name);
  }
  return values;
}

absl::StatusOr<ModelLayer> BuildExported(const ExportedModel& model, const v1::Plan& plan, const ExportedStage& stage) {
  const Archive& archive = *model.archive;
  const v1::Stage& cut = plan.stages(stage.index);
  const int next = cut.first_layer() + cut.layer_count();
  const size_t first = static_cast<size_t>(plan.layers(cut.first_layer()).first_node());
  const size_t last = next < plan.layers_size() ? static_cast<size_t>(plan.layers(next).first_node())
                                                : archive.program().graph.nodes.size();
  if (first > last || last > archive.program().graph.nodes.size()) {
    return absl::InvalidArgumentError(absl::StrCat("stage ", stage.index, " is not within the program"));
  }
  GPIPE_ASSIGN_OR_RETURN(const Units units, Units::Find(archive));
  GraphLayer::Part part = units.PartOf(first, last, stage.outputs);
  part.deferred_batch_norm = stage.deferred_batch_norm;
  for (int layer = cut.first_layer(); layer < next; ++layer) {
    for (const v1::ModelTensor& tensor : plan.layers(layer).tensors()) part.state.push_back(tensor.name());
  }
  GPIPE_ASSIGN_OR_RETURN(std::unique_ptr<GraphLayer> graph,
                         GraphLayer::Create(archive, part, {stage.device}, model.tensors, model.values));
  return ModelLayer{cut.first_layer(), "exported", "", part.entering, part.leaving, std::move(graph)};
}

}  // namespace gpipe::worker
