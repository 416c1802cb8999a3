// CheckResumedOptimizer: what a checkpoint has of its optimizer against the one that goes on.

#include <algorithm>
#include <set>
#include <string>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "common/field_error.h"
#include "common/safetensors/header.h"
#include "common/safetensors/shard_names.h"
#include "common/status_macros.h"
#include "orchestrator/artifacts/input_check.h"

namespace gpipe::orchestrator {
namespace {

using Slots = std::set<std::string>;

// What an optimizer keeps of each parameter: `0.weight/exp_avg` (worker/stage/update_rule.h).
Slots SlotsOf(const v1::Optimizer& optimizer) {
  if (optimizer.has_adam() || optimizer.has_adamw()) return {"exp_avg", "exp_avg_sq", "step"};
  if (optimizer.sgd().momentum() != 0) return {"momentum_buffer"};
  return {};
}

absl::StatusOr<Slots> SlotsIn(const CheckpointFiles& checkpoint, const ArtifactStore& store) {
  Slots slots;
  for (const v1::ArtifactRef& ref : TensorFilesOf(checkpoint.files, kOptimizerStem)) {
    GPIPE_ASSIGN_OR_RETURN(const std::filesystem::path file, store.Path(ref));
    GPIPE_ASSIGN_OR_RETURN(const safetensors::Header header, safetensors::ReadHeader(file));
    for (const auto& [name, info] : header.tensors) {
      if (const size_t cut = name.rfind('/'); cut != std::string::npos) slots.insert(name.substr(cut + 1));
    }
  }
  return slots;
}

}  // namespace

absl::Status CheckResumedOptimizer(const v1::Optimizer& optimizer, const CheckpointFiles& checkpoint,
                                   const ArtifactStore& store) {
  const Slots own = SlotsOf(optimizer);
  GPIPE_ASSIGN_OR_RETURN(const Slots saved, SlotsIn(checkpoint, store));
  const bool used = std::ranges::includes(own, saved);
  if (used) return absl::OkStatus();
  const char* kind = saved.contains("exp_avg") ? "adam or adamw" : "sgd with a momentum";
  return FieldError(
      "train.optimizer",
      absl::StrCat("has no use for the state in the checkpoint (", absl::StrJoin(saved, ", "), "), which is that of ",
                   kind, ": resume with that, or begin anew with the checkpoint's model as model.weights"));
}

}  // namespace gpipe::orchestrator
