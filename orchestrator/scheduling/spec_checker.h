#ifndef GPIPE_ORCHESTRATOR_SCHEDULING_SPEC_CHECKER_H_
#define GPIPE_ORCHESTRATOR_SCHEDULING_SPEC_CHECKER_H_

#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "common/error_reason.h"
#include "orchestrator/artifacts/artifact_store.h"
#include "orchestrator/artifacts/input_check.h"
#include "orchestrator/cluster/background.h"
#include "orchestrator/cluster/cluster.h"
#include "orchestrator/cluster/event_loop.h"
#include "orchestrator/jobs/stored_job.h"

namespace gpipe::orchestrator {

// What is known of a spec that was checked with everything it names.
struct CheckedSpec {
  // The spec with the files of shared patterns in their place, and all of its files, shared ones too.
  v1::JobSpec spec;
  FileMap files;
  InputFacts facts;
  // nullopt: no worker has described the model yet, so shapes and targets are not checked; nor, where the spec has
  // shared files, anything else.
  std::optional<LayerInfos> layers;
  // Why there are no layers. DEADLINE_EXCEEDED: a worker was asked and has not answered. UNAVAILABLE: none could be
  // asked.
  absl::Status undescribed;
  // Not OK: the model can be planned, but not run, for want of weights.
  absl::Status weights;
  std::vector<std::string> notes;  // What the job's owner may want to know.
};

// Checks a spec against its data files, shared ones on a worker, and, on a worker, its shapes; then its weights and the
// checkpoint that it resumes from against the layers, and its targets against the number of classes. For the loop's
// thread; files are read in the background.
class SpecChecker {
 public:
  static constexpr absl::Duration kInspectTimeout = absl::Seconds(20);
  // A shared folder with thousands of files may be slow.
  static constexpr absl::Duration kSurveyTimeout = absl::Seconds(60);

  using Callback = std::function<void(absl::StatusOr<CheckedSpec>)>;

  // All must outlive the checker, and the background's work the loop.
  SpecChecker(EventLoop* loop, Cluster* cluster, Background* background, ArtifactStore* artifacts)
      : loop_(loop), cluster_(cluster), background_(background), artifacts_(artifacts) {}

  // Calls `done` once, now or later, unless the loop stops before. INVALID_ARGUMENT, by field path: a bad spec.
  // RESOURCE_EXHAUSTED: too many checks are waiting.
  // REQUIRES: `spec` is valid and has its defaults.
  void Check(const v1::JobSpec& spec, const FileMap& files, const std::optional<CheckpointFiles>& resume,
             Callback done);

  // Runs `work` in the background and then `then` on the loop with its result.
  // RESOURCE_EXHAUSTED goes to `then` at once.
  template <typename T>
  void InBackground(std::function<T()> work, std::function<void(T)> then) {
    auto run = [loop = loop_, work = std::move(work), then] { loop->Post([then, result = work()] { then(result); }); };
    if (background_->Run(std::move(run))) return;
    then(WithReason(absl::ResourceExhaustedError("too many checks are waiting; try later"), reason::kOverloaded));
  }

 private:
  struct Pending {
    std::optional<CheckpointFiles> resume;
    Callback done;
    CheckedSpec checked;
    SharedTables shared;
  };
  void Survey(std::shared_ptr<Pending> check, const v1::Survey& survey);
  void CheckData(std::shared_ptr<Pending> check);
  void Inspect(std::shared_ptr<Pending> check);
  // When a worker was needed that is not there, or does not answer, `done` gets what is known, else the status.
  static void GiveUp(Pending& check, const absl::Status& why);
  void CheckFiles(std::shared_ptr<Pending> check);

  EventLoop* const loop_;
  Cluster* const cluster_;
  Background* const background_;
  ArtifactStore* const artifacts_;
};

}  // namespace gpipe::orchestrator

#endif  // GPIPE_ORCHESTRATOR_SCHEDULING_SPEC_CHECKER_H_
