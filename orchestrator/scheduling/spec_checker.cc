#include "orchestrator/scheduling/spec_checker.h"

#include <utility>

#include "common/status_macros.h"
#include "orchestrator/planning/fixed_cut.h"
#include "orchestrator/planning/planner.h"

namespace gpipe::orchestrator {

void SpecChecker::Check(const v1::JobSpec& spec, const FileMap& files, const std::optional<CheckpointFiles>& resume,
                        Callback done) {
  auto check = std::make_shared<Pending>(Pending{.resume = resume,
                                                 .done = std::move(done),
                                                 .checked = {.spec = spec, .files = files, .facts = {}, .layers = {}},
                                                 .shared = {}});
  const v1::Survey survey = MakeSurvey(spec);
  if (survey.asked().empty()) return CheckData(std::move(check));
  Survey(std::move(check), survey);
}

void SpecChecker::Survey(std::shared_ptr<Pending> check, const v1::Survey& survey) {
  cluster_->surveyor().Survey(survey, check->checked.spec.pipeline().device(), kSurveyTimeout,
                              [this, check, survey](const absl::StatusOr<v1::Surveyed>& answer) {
                                if (!answer.ok()) return GiveUp(*check, answer.status());
                                const absl::Status taken = TakeSurvey(survey, *answer, check->checked.spec,
                                                                      check->checked.files, check->shared);
                                if (!taken.ok()) return check->done(taken);
                                CheckData(check);
                              });
}

void SpecChecker::GiveUp(Pending& check, const absl::Status& why) {
  check.checked.timed_out = absl::IsDeadlineExceeded(why);
  if (check.checked.timed_out || absl::IsUnavailable(why)) return check.done(check.checked);
  check.done(why);
}

void SpecChecker::CheckData(std::shared_ptr<Pending> check) {
  InBackground<absl::StatusOr<InputFacts>>(
      [check, artifacts = artifacts_] {
        return CheckInputs(check->checked.spec, check->checked.files, *artifacts, check->shared);
      },
      [this, check](absl::StatusOr<InputFacts> facts) {
        if (!facts.ok()) return check->done(facts.status());
        check->checked.facts = *std::move(facts);
        const absl::Status size = CheckSize(check->checked.spec, check->checked.facts);
        if (!size.ok()) return check->done(size);
        Inspect(check);
      });
}

void SpecChecker::Inspect(std::shared_ptr<Pending> check) {
  const CheckedSpec& checked = check->checked;
  cluster_->inspector().Inspect(MakeInspect(checked.spec, checked.facts, checked.files, /*measure=*/false),
                                checked.spec.pipeline().device(), kInspectTimeout,
                                [this, check](absl::StatusOr<LayerInfos> layers) {
                                  if (!layers.ok()) return GiveUp(*check, layers.status());
                                  check->checked.layers = *std::move(layers);
                                  CheckFiles(check);
                                });
}

void SpecChecker::CheckFiles(std::shared_ptr<Pending> check) {
  InBackground<absl::Status>(
      [check, artifacts = artifacts_]() -> absl::Status {
        const auto& [spec, files, facts, inspected, timed_out] = check->checked;
        const LayerInfos& layers = *inspected;
        GPIPE_RETURN_IF_ERROR(FixedCut(spec, layers).status());
        if (spec.model().has_exported()) GPIPE_RETURN_IF_ERROR(CheckFrozen(spec, layers));
        GPIPE_RETURN_IF_ERROR(CheckWeights(spec, files, *artifacts, layers, check->shared));
        if (check->resume) GPIPE_RETURN_IF_ERROR(CheckResume(*check->resume, *artifacts, layers));
        return CheckTargets(spec, files, *artifacts, ClassesOf(spec, layers), check->shared);
      },
      [check](const absl::Status& files) {
        if (!files.ok()) return check->done(files);
        check->done(check->checked);
      });
}

}  // namespace gpipe::orchestrator
