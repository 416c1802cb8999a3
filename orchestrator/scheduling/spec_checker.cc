#include "orchestrator/scheduling/spec_checker.h"

#include <algorithm>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "common/status_macros.h"
#include "orchestrator/planning/fixed_cut.h"
#include "orchestrator/planning/planner.h"

namespace gpipe::orchestrator {
namespace {

std::string LeftOut(const std::vector<std::string>& names) {
  constexpr size_t kShown = 20;
  const size_t shown = std::min(names.size(), kShown);
  return absl::StrCat("left out of model.weights, as the model has no such tensor: ",
                      absl::StrJoin(names.begin(), names.begin() + static_cast<std::ptrdiff_t>(shown), ", "),
                      names.size() > shown ? absl::StrCat(" and ", names.size() - shown, " more") : "");
}

}  // namespace

void SpecChecker::Check(const v1::JobSpec& spec, const FileMap& files, const std::optional<CheckpointFiles>& resume,
                        Callback done) {
  auto check = std::make_shared<Pending>(
      Pending{.spec = spec, .files = files, .resume = resume, .done = std::move(done), .checked = {}});
  InBackground<absl::StatusOr<InputFacts>>(
      [check, artifacts = artifacts_] { return CheckInputs(check->spec, check->files, *artifacts); },
      [this, check](absl::StatusOr<InputFacts> facts) {
        if (!facts.ok()) return check->done(facts.status());
        check->checked.facts = *std::move(facts);
        if (absl::Status size = CheckSize(check->spec, check->checked.facts); !size.ok()) return check->done(size);
        Inspect(check);
      });
}

void SpecChecker::Inspect(std::shared_ptr<Pending> check) {
  inspector_->Inspect(MakeInspect(check->spec, check->checked.facts, check->files, /*measure=*/false),
                      check->spec.pipeline().device(), kInspectTimeout,
                      [this, check](absl::StatusOr<LayerInfos> layers) {
                        if (absl::IsDeadlineExceeded(layers.status()) || absl::IsUnavailable(layers.status())) {
                          check->checked.undescribed = layers.status();
                          return check->done(check->checked);
                        }
                        if (!layers.ok()) return check->done(layers.status());
                        check->checked.layers = *std::move(layers);
                        CheckFiles(check);
                      });
}

void SpecChecker::CheckFiles(std::shared_ptr<Pending> check) {
  InBackground<absl::Status>(
      [check, artifacts = artifacts_]() -> absl::Status {
        const LayerInfos& layers = *check->checked.layers;
        GPIPE_RETURN_IF_ERROR(FixedCut(check->spec, layers).status());
        if (check->spec.model().has_exported()) GPIPE_RETURN_IF_ERROR(CheckFrozen(check->spec, layers));
        GPIPE_ASSIGN_OR_RETURN(const std::vector<std::string> left_out,
                               CheckWeights(check->spec, check->files, *artifacts, layers));
        if (!left_out.empty()) check->checked.notes.push_back(LeftOut(left_out));
        if (check->resume) {
          GPIPE_RETURN_IF_ERROR(CheckResume(*check->resume, *artifacts, layers));
        } else {
          check->checked.weights = CheckHasValues(check->spec, layers);
        }
        return CheckTargets(check->spec, check->files, *artifacts, ClassesOf(check->spec, layers));
      },
      [check](const absl::Status& files) {
        if (!files.ok()) return check->done(files);
        check->done(check->checked);
      });
}

}  // namespace gpipe::orchestrator
