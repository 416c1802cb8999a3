#include "orchestrator/planning/fixed_cut.h"

#include <map>
#include <numeric>
#include <optional>
#include <string>

#include "absl/strings/str_cat.h"
#include "common/field_error.h"
#include "common/spec/nearest_name.h"

namespace gpipe::orchestrator {
namespace {

using Layers = std::vector<v1::LayerInfo>;

absl::StatusOr<std::vector<int64_t>> CutByBalance(const v1::Pipeline& pipeline, const Layers& layers) {
  const auto& balance = pipeline.balance();
  const int64_t sum = std::accumulate(balance.begin(), balance.end(), int64_t{0});
  if (sum == static_cast<int64_t>(layers.size())) return std::vector<int64_t>(balance.begin(), balance.end());
  return FieldError("pipeline.balance",
                    absl::StrCat("must add up to the number of parts into which the model can be "
                                 "cut (sum of balance: ",
                                 sum, ", parts: ", layers.size(), "); leave balance out for a cut by measured cost"));
}

// Finds the layers at which the modules of a split begin, and collects what is wrong with it.
class Splitter {
 public:
  explicit Splitter(const Layers& layers) : layers_(layers) {
    for (int i = 0; i < static_cast<int>(layers.size()); ++i) {
      for (const std::string& module : layers[i].begins()) beginning_.emplace(module, i);
      for (const std::string& module : layers[i].contains()) within_.emplace(module, i);
    }
  }

  absl::StatusOr<std::vector<int64_t>> Cut(const v1::Pipeline& pipeline) {
    std::vector<int64_t> counts;
    for (int i = 0; i < pipeline.split_size(); ++i) {
      const std::string& module = pipeline.split(i);
      const std::string problem = ProblemWith(module);
      if (!problem.empty()) {
        errors_.Add(absl::StrCat("pipeline.split[", i, "]"), problem);
        continue;
      }
      counts.push_back(beginning_.at(module) - first_);
      first_ = beginning_.at(module);
      last_ = module;
    }
    if (!errors_.empty()) return errors_.ToStatus();
    counts.push_back(static_cast<int64_t>(layers_.size()) - first_);
    return counts;
  }

 private:
  // Empty when a stage can begin at the module, behind the last one that does.
  std::string ProblemWith(const std::string& module) const {
    if (const auto within = within_.find(module); within != within_.end()) return Uncuttable(module, within->second);
    const auto begin = beginning_.find(module);
    if (begin == beginning_.end()) return Unknown(module);
    if (begin->second == 0) return absl::StrCat("the model begins with '", module, "', as its first stage does anyway");
    if (begin->second > first_) return "";
    if (module == last_) return absl::StrCat("'", module, "' is given twice");
    if (begin->second == first_) return absl::StrCat("'", module, "' begins where '", last_, "' does");
    return absl::StrCat("'", module, "' comes before '", last_, "' in the program; give the modules in its order");
  }

  std::string Unknown(const std::string& module) const {
    std::vector<std::string> names;
    for (const auto& [name, layer] : beginning_) names.push_back(name);
    for (const auto& [name, layer] : within_) names.push_back(name);
    const std::string nearest = spec::NearestName(module, names);
    return absl::StrCat("the model has no module '", module, "' that computes anything",
                        nearest.empty() ? "" : absl::StrCat("; did you mean '", nearest, "'?"));
  }

  std::string Uncuttable(const std::string& module, int layer) const {
    std::string text =
        absl::StrCat("no stage can begin at '", module,
                     "', inseparable from what is before it (what would cross is still written to, is a number, or has "
                     "a size that does not follow from the number of samples, but depends on what the data is)");
    const std::optional<std::string> before = Neighbour(layer, -1), behind = Neighbour(layer + 1, 1);
    if (!before && !behind) return text;
    return absl::StrCat(text, "; one can at ", before ? absl::StrCat("'", *before, "' before it") : "",
                        before && behind ? " and at " : "", behind ? absl::StrCat("'", *behind, "' behind it") : "");
  }

  // The outermost module at which a stage can begin, from `layer` on.
  std::optional<std::string> Neighbour(int layer, int direction) const {
    for (int i = layer; i > 0 && i < static_cast<int>(layers_.size()); i += direction) {
      if (!layers_[i].begins().empty()) return layers_[i].begins(0);
    }
    return std::nullopt;
  }

  const Layers& layers_;
  std::map<std::string, int> beginning_;  // Layer at which each module begins.
  std::map<std::string, int> within_;     // The same of those at which no stage can begin.
  int first_ = 0;                         // First layer of the stage that was found last,
  std::string last_;                      // and the module that it begins with.
  FieldErrors errors_;
};

}  // namespace

int FixedStages(const v1::JobSpec& spec) {
  const v1::Pipeline& pipeline = spec.pipeline();
  return pipeline.split().empty() ? pipeline.balance_size() : pipeline.split_size() + 1;
}

absl::StatusOr<std::vector<int64_t>> FixedCut(const v1::JobSpec& spec, const std::vector<v1::LayerInfo>& layers) {
  const v1::Pipeline& pipeline = spec.pipeline();
  if (!pipeline.split().empty()) return Splitter(layers).Cut(pipeline);
  if (!pipeline.balance().empty()) return CutByBalance(pipeline, layers);
  return std::vector<int64_t>();
}

}  // namespace gpipe::orchestrator
