#include "orchestrator/scheduling/spec_checker.h"

#include <algorithm>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "common/status_macros.h"
#include "orchestrator/planning/fixed_cut.h"
#include "orchestrator/planning/planner.h"
#include "orchestrator/planning/statistics_check.h"

namespace gpipe::orchestrator {
namespace {

std::string LeftOut(const std::vector<std::string>& names) {
  constexpr size_t kShown = 20;
  const size_t shown = std::min(names.size(), kShown);
  return absl::StrCat("left out of model.weights, as the model has no such tensor: ",
                      absl::StrJoin(names.begin(), names.begin() + static_cast<std::ptrdiff_t>(shown), ", "),
                      names.size() > shown ? absl::StrCat(" and ", names.size() - shown, " more") : "");
}

// What a job is about to have must not go with another one that had it.
void Claim(ArtifactStore& artifacts, const FileMap& files) {
  for (const auto& [path, ref] : files) artifacts.Claim(ref).IgnoreError();  // Its check will tell.
}

}  // namespace

void SpecChecker::Check(const v1::JobSpec& spec, const FileMap& files, const std::optional<CheckpointFiles>& resume,
                        Callback done) {
  auto check =
      std::make_shared<Pending>(Pending{.resume = resume, .done = std::move(done), .checked = {}, .shared = {}});
  check->checked.spec = spec;
  check->checked.files = files;
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
  if (!absl::IsDeadlineExceeded(why) && !absl::IsUnavailable(why)) return check.done(why);
  check.checked.undescribed = why;
  check.done(check.checked);
}

void SpecChecker::CheckData(std::shared_ptr<Pending> check) {
  InBackground<absl::StatusOr<InputFacts>>(
      [check, artifacts = artifacts_] {
        Claim(*artifacts, check->checked.files);
        if (check->resume) Claim(*artifacts, check->resume->files);
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
        CheckedSpec& checked = check->checked;
        const v1::JobSpec& spec = checked.spec;
        const LayerInfos& layers = *checked.layers;
        GPIPE_RETURN_IF_ERROR(FixedCut(spec, layers).status());
        GPIPE_RETURN_IF_ERROR(CheckStatistics(spec, checked.facts, layers));
        if (spec.model().has_exported()) GPIPE_RETURN_IF_ERROR(CheckFrozen(spec, layers));
        GPIPE_ASSIGN_OR_RETURN(const std::vector<std::string> left_out,
                               CheckWeights(spec, checked.files, *artifacts, layers, check->shared));
        if (!left_out.empty()) checked.notes.push_back(LeftOut(left_out));
        if (check->resume) {
          GPIPE_RETURN_IF_ERROR(CheckResume(*check->resume, *artifacts, layers));
          GPIPE_RETURN_IF_ERROR(CheckResumedOptimizer(check->checked.spec.train(), *check->resume, *artifacts));
        } else {
          checked.weights = CheckHasValues(spec, layers);
        }
        return CheckTargets(spec, checked.files, *artifacts, ClassesOf(spec, layers), check->shared);
      },
      [check](const absl::Status& files) {
        if (!files.ok()) return check->done(files);
        check->done(check->checked);
      });
}

}  // namespace gpipe::orchestrator
