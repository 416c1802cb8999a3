#ifndef GPIPE_ORCHESTRATOR_SCHEDULING_ADMISSION_H_
#define GPIPE_ORCHESTRATOR_SCHEDULING_ADMISSION_H_

#include <cstdint>
#include <functional>
#include <map>
#include <memory>

#include "absl/status/statusor.h"
#include "gpipe/v1/pipeline_service.pb.h"
#include "orchestrator/artifacts/artifact_store.h"
#include "orchestrator/cluster/cluster.h"
#include "orchestrator/cluster/event_loop.h"
#include "orchestrator/jobs/disk_guard.h"
#include "orchestrator/scheduling/job_book.h"
#include "orchestrator/scheduling/plan_maker.h"
#include "orchestrator/scheduling/scheduler.h"
#include "orchestrator/scheduling/spec_checker.h"

namespace gpipe::orchestrator {

// Lets jobs in: checks what is submitted with everything it names, stores it, then answers. Also answers how a spec
// would be planned. For the loop's thread.
class Admission {
 public:
  using SubmitCallback = std::function<void(absl::StatusOr<v1::Job>)>;
  using PlanCallback = std::function<void(absl::StatusOr<v1::PlanJobResponse>)>;

  struct Parts {
    EventLoop* loop;
    Cluster* cluster;
    JobBook* book;
    Scheduler* scheduler;
    SpecChecker* checker;
    Profiler* profiler;
    PlanMaker* planner;
    const ArtifactStore* artifacts;
    const DiskGuard* disk;
  };
  // All parts must outlive the admission.
  explicit Admission(const Parts& parts) : parts_(parts) {}

  // Calls `done` once, when the job is stored or refused. INVALID_ARGUMENT by field path; ALREADY_EXISTS: the request
  // id was used for another request; NOT_FOUND: no job or checkpoint to resume from; RESOURCE_EXHAUSTED: too many jobs.
  // REQUIRES: the request's spec is valid; `spec` is that with its defaults. `submitted_by` is as the job has it.
  void Submit(const v1::SubmitJobRequest& request, const v1::JobSpec& spec, std::string submitted_by,
              SubmitCallback done);

  // UNAVAILABLE, with a hint, when no worker can look at the model. REQUIRES: as Submit.
  void Plan(const v1::PlanJobRequest& request, const v1::JobSpec& spec, PlanCallback done);

  // Refuses whatever is under way and whatever comes, with `reason`.
  void Shutdown(const absl::Status& reason);

 private:
  // A request until it is answered.
  struct Submission {
    StoredJob stored;
    SubmitCallback done;
  };
  struct Planning {
    v1::JobSpec spec;
    FileMap files;
    int workers = 0;             // Asked for; 0 is up to the spec.
    bool validate_only = false;  // Refuse also what can be planned, but not run; measure nothing.
    CheckedSpec checked = {};
    std::vector<v1::Hello> hosts = {};  // The workers it is planned for; the same one may stand for several.
    std::map<std::string, LayerInfos> measured = {};  // By kind of worker.
    PlanCallback done;
  };

  // With the reason INVALID_SPEC where a field is bad: what checking and planning have found is of the spec.
  static absl::Status OfSpec(const absl::Status& why);
  bool AnsweredBefore(const StoredJob& stored, const SubmitCallback& done);
  absl::StatusOr<std::optional<CheckpointFiles>> ResumeJob(std::string_view id);
  void CheckSpec(uint64_t id);
  void OnChecked(uint64_t id, absl::StatusOr<CheckedSpec> checked);
  void Insert(Submission submission, const CheckedSpec& checked);
  void Refuse(uint64_t id, const absl::Status& why);
  // Answers when the batch is stored.
  void Answer(const SubmitCallback& done, absl::StatusOr<v1::Job> result);

  void OnPlanChecked(uint64_t id, absl::StatusOr<CheckedSpec> checked);
  void MeasureThenRespond(uint64_t id);
  std::vector<v1::Hello> HostsFor(const Planning& planning) const;
  std::vector<WorkerEntry*> Connected(v1::Device device, int64_t wanted) const;
  // Has the plan made and answers with it.
  void Respond(uint64_t id);
  void RespondUnmeasured(uint64_t id);
  void FinishPlan(uint64_t id, absl::StatusOr<v1::PlanJobResponse> response);

  const Parts parts_;
  std::map<uint64_t, Submission> submissions_;
  std::map<uint64_t, Planning> plannings_;
  uint64_t next_id_ = 1;
  absl::Status closed_;  // Non-OK after Shutdown.
};

}  // namespace gpipe::orchestrator

#endif  // GPIPE_ORCHESTRATOR_SCHEDULING_ADMISSION_H_
