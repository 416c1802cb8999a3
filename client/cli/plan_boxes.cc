#include "client/cli/plan_boxes.h"

#include <algorithm>
#include <set>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "client/cli/plan_facts.h"

namespace gpipe::client {
namespace {

using Boxes = std::vector<PlanBox>;

// A stage with fewer boxes is shown in more detail.
constexpr size_t kFew = 3;

size_t DepthOf(const std::string& module) {
  return module.empty() ? 0 : static_cast<size_t>(std::count(module.begin(), module.end(), '.')) + 1;
}

// The first `depth` names of a module's path.
std::string Prefix(const std::string& module, size_t depth) {
  size_t end = 0;
  for (size_t i = 0; i < depth && end != std::string::npos; ++i) end = module.find('.', end == 0 ? 0 : end + 1);
  return module.substr(0, end);
}

bool LiesIn(const std::string& module, const std::string& outer) {
  return outer.empty() || module == outer || absl::StartsWith(module, absl::StrCat(outer, "."));
}

class Grouping {
 public:
  explicit Grouping(const v1::Plan& plan) : plan_(plan), exported_(IsExported(plan)) {
    for (const TiedTensor& tied : TiedTensors(plan)) tied_.insert(tied.names.front());
  }

  size_t max_depth() const {
    size_t depth = 1;
    for (const v1::LayerInfo& layer : plan_.layers()) depth = std::max(depth, DepthOf(layer.kind()));
    return exported_ ? depth : 1;
  }

  std::vector<Boxes> Group(size_t depth) const {
    std::vector<Boxes> stages;
    for (int stage = 0; stage < plan_.stages_size(); ++stage) stages.push_back(GroupStage(stage, depth));
    return stages;
  }

  Boxes GroupStage(int stage, size_t depth) const {
    Boxes boxes;
    int index = plan_.stages(stage).first_layer();
    for (const v1::LayerInfo* layer : LayersOf(plan_, plan_.stages(stage))) {
      const std::string label = exported_ ? Prefix(layer->kind(), depth) : absl::StrCat(index++, " ", layer->kind());
      if (boxes.empty() || !Continues(*layer, label, boxes.back())) {
        boxes.push_back({.label = label.empty() ? "(model)" : label});
      }
      boxes.back().parameters += layer->parameter_count();
      boxes.back().tied = boxes.back().tied || IsTied(*layer);
    }
    return boxes;
  }

 private:
  // Also an addition around a module, which belongs to the one that both lie in.
  bool Continues(const v1::LayerInfo& layer, const std::string& label, const PlanBox& box) const {
    if (!exported_) return false;
    return label == box.label || (layer.parameter_count() == 0 && LiesIn(box.label, label));
  }

  bool IsTied(const v1::LayerInfo& layer) const {
    return std::any_of(layer.tensors().begin(), layer.tensors().end(),
                       [&](const v1::ModelTensor& tensor) { return tied_.contains(tensor.name()); });
  }

  const v1::Plan& plan_;
  const bool exported_;
  std::set<std::string> tied_;
};

void FoldMiddle(Boxes& boxes, size_t most) {
  if (boxes.size() <= most) return;
  const size_t before = most / 2, behind = most - before - 1;
  const auto first = boxes.begin() + static_cast<ptrdiff_t>(before),
             last = boxes.end() - static_cast<ptrdiff_t>(behind);
  PlanBox folded{.label = absl::StrCat("... ", last - first, " more")};
  for (auto box = first; box != last; ++box) {
    folded.parameters += box->parameters;
    folded.tied = folded.tied || box->tied;
  }
  boxes.insert(boxes.erase(first, last), folded);
}

void MarkParts(const v1::Plan& plan, std::vector<Boxes>& stages) {
  for (size_t i = 0; i < stages.size(); ++i) {
    for (PlanBox& box : stages[i]) {
      for (size_t other = 0; other < stages.size() && !box.part; ++other) {
        const auto layers = LayersOf(plan, plan.stages(static_cast<int>(other)));
        box.part = other != i && std::any_of(layers.begin(), layers.end(), [&](const v1::LayerInfo* layer) {
                     return LiesIn(layer->kind(), box.label);
                   });
      }
    }
  }
}

}  // namespace

std::vector<std::vector<PlanBox>> BoxesOf(const v1::Plan& plan, size_t most) {
  const Grouping grouping(plan);
  const auto fits = [&](const Boxes& boxes) { return boxes.size() <= most; };
  size_t depth = grouping.max_depth();
  std::vector<Boxes> stages = grouping.Group(depth);
  while (depth > 1 && !std::all_of(stages.begin(), stages.end(), fits)) stages = grouping.Group(--depth);
  for (size_t stage = 0; stage < stages.size(); ++stage) {
    if (stages[stage].size() >= kFew) continue;
    size_t own = grouping.max_depth();
    while (own > depth && !fits(grouping.GroupStage(static_cast<int>(stage), own))) --own;
    stages[stage] = grouping.GroupStage(static_cast<int>(stage), own);
  }
  if (IsExported(plan)) MarkParts(plan, stages);
  for (Boxes& boxes : stages) FoldMiddle(boxes, most);
  return stages;
}

}  // namespace gpipe::client
