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
namespace {

const std::string& NamedOutput(const v1::Loss& loss) {
  if (loss.has_mse()) return loss.mse().output();
  return loss.has_bce_with_logits() ? loss.bce_with_logits().output() : loss.cross_entropy().output();
}

}  // namespace

absl::StatusOr<std::string> OutputValue(const exported::Program& program, const v1::Loss& loss) {
  const std::string& wanted = NamedOutput(loss);
  std::vector<std::string> names;
  for (const exported::UserOutput& output : program.user_outputs) {
    const auto* value = std::get_if<exported::ValueName>(&output.value.value);
    if (value == nullptr) continue;
    if (wanted.empty() || output.name == wanted) return value->name;
    names.push_back(output.name);
  }
  return FieldError("train.loss",
                    absl::StrCat("the model has no output '", wanted, "'; it has: ", absl::StrJoin(names, ", ")));
}

absl::StatusOr<ModelLayer> BuildExported(const ExportedModel& model, const v1::Plan& plan, int stage,
                                         const std::string& output, c10::Device device) {
  const Archive& archive = *model.archive;
  const v1::Stage& cut = plan.stages(stage);
  const int next = cut.first_layer() + cut.layer_count();
  const size_t first = static_cast<size_t>(plan.layers(cut.first_layer()).first_node());
  const size_t last = next < plan.layers_size() ? static_cast<size_t>(plan.layers(next).first_node())
                                                : archive.program().graph.nodes.size();
  if (first >= last || last > archive.program().graph.nodes.size()) {
    return absl::InvalidArgumentError(absl::StrCat("stage ", stage, " is not within the program"));
  }
  GPIPE_ASSIGN_OR_RETURN(const Units units, Units::Find(archive));
  const GraphLayer::Part part = units.PartOf(first, last, {output});
  GPIPE_ASSIGN_OR_RETURN(std::unique_ptr<GraphLayer> graph, GraphLayer::Create(archive, part, {device}, model.tensors));
  return ModelLayer{cut.first_layer(), "exported", "", part.entering, part.leaving, std::move(graph)};
}

}  // namespace gpipe::worker
