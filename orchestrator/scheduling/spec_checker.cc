#include "orchestrator/scheduling/spec_checker.h"

#include <utility>

#include "common/status_macros.h"
#include "orchestrator/planning/fixed_cut.h"
#include "orchestrator/planning/planner.h"

namespace gpipe::orchestrator {

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
        GPIPE_RETURN_IF_ERROR(CheckWeights(check->spec, check->files, *artifacts, layers));
        if (check->resume) GPIPE_RETURN_IF_ERROR(CheckResume(*check->resume, *artifacts, layers));
        return CheckTargets(check->spec, check->files, *artifacts, ClassesOf(check->spec, layers));
      },
      [check](const absl::Status& files) {
        if (!files.ok()) return check->done(files);
        check->done(check->checked);
      });
}

}  // namespace gpipe::orchestrator
