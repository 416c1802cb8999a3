// CheckResumedOptimizer: what a checkpoint has of its optimizer against the one that goes on.

#include <algorithm>
#include <set>
#include <string>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "common/field_error.h"
#include "common/precision_names.h"
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

std::string NameOf(v1::Precision precision) {
  if (precision == v1::PRECISION_BF16) return "bf16";
  return precision == v1::PRECISION_FP16 ? "fp16" : "fp32";
}

struct Saved {
  Slots slots;
  std::string precision = "fp32";
};

absl::StatusOr<Saved> SavedIn(const CheckpointFiles& checkpoint, const ArtifactStore& store) {
  Saved saved;
  for (const v1::ArtifactRef& ref : TensorFilesOf(checkpoint.files, kOptimizerStem)) {
    GPIPE_ASSIGN_OR_RETURN(const std::filesystem::path file, store.Path(ref));
    GPIPE_ASSIGN_OR_RETURN(const safetensors::Header header, safetensors::ReadHeader(file));
    for (const auto& [name, info] : header.tensors) {
      const size_t cut = name.rfind('/');
      if (name == kScaleOfBf16 || name == kScaleOfFp16) {
        saved.precision = name.substr(cut + 1);
      } else if (cut != std::string::npos && name != kGoodSteps && name.substr(cut + 1) != kMasterSlot) {
        saved.slots.insert(name.substr(cut + 1));
      }
    }
  }
  return saved;
}

constexpr char kWhatElse[] = ": resume with that, or begin anew with the checkpoint's model as model.weights";

}  // namespace

absl::Status CheckResumedOptimizer(const v1::Train& train, const CheckpointFiles& checkpoint,
                                   const ArtifactStore& store) {
  const Slots own = SlotsOf(train.optimizer());
  GPIPE_ASSIGN_OR_RETURN(const Saved saved, SavedIn(checkpoint, store));
  FieldErrors errors;
  if (!std::ranges::includes(own, saved.slots)) {
    const char* kind = saved.slots.contains("exp_avg") ? "adam or adamw" : "sgd with a momentum";
    errors.Add("train.optimizer",
               absl::StrCat("has no use for the state in the checkpoint (", absl::StrJoin(saved.slots, ", "),
                            "), which is that of ", kind, kWhatElse));
  }
  if (const std::string wanted = NameOf(train.precision()); wanted != saved.precision) {
    errors.Add("train.precision", absl::StrCat("is ", wanted, ", and what the checkpoint has is of training in ",
                                               saved.precision, kWhatElse));
  }
  return errors.ToStatus();
}

}  // namespace gpipe::orchestrator
