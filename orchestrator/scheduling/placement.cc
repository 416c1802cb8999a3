// The half of the scheduler that brings the head of the queue onto workers.

#include <algorithm>
#include <map>
#include <optional>
#include <set>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "common/plan/convert.h"
#include "common/spec/client_data.h"
#include "common/status_macros.h"
#include "common/string_view.h"
#include "common/timestamp.h"
#include "orchestrator/planning/balance.h"
#include "orchestrator/planning/planner.h"
#include "orchestrator/scheduling/failure.h"
#include "orchestrator/scheduling/restart.h"
#include "orchestrator/scheduling/scheduler.h"
#include "pipeline/timeline.h"
#include "spdlog/spdlog.h"

namespace gpipe::orchestrator {
namespace {

// The kind of the first of these workers on which the job's layers were not measured; nullopt when there is none.
std::optional<std::string> UnmeasuredKind(const LiveJob& job, const std::vector<WorkerEntry*>& workers) {
  for (const WorkerEntry* worker : workers) {
    std::string kind = KindOf(worker->hello);
    if (!job.measured.contains(kind)) return kind;
  }
  return std::nullopt;
}

// What a job that has begun before waits for: `restart 2 of 3: `.
std::string RestartNote(const LiveJob& job) {
  return job.job().has_restart_time() ? absl::StrCat(RestartNumber(job.job()), ": ") : "";
}

}  // namespace

void Scheduler::ScheduleSoon() {
  if (scheduled_ || closed_) return;
  scheduled_ = true;
  loop_->PostAfter(absl::ZeroDuration(), [this] {
    scheduled_ = false;
    while (TryQueue()) {
    }
  });
}

// Looks at the queue in its order. A job whose workers are busy keeps them for itself as they become idle: nothing
// behind it is placed on that kind of device. One that needs more workers than there are holds back nobody. True when a
// job was dealt with, and the queue is to be looked at again.
bool Scheduler::TryQueue() {
  if (closed_ || !held_.empty()) return false;
  std::set<v1::Device> reserved;
  const LiveJob* ahead = nullptr;
  size_t explained = 0;
  for (LiveJob* job : book_->Queue(kMaxLookedAt)) {
    const v1::JobSpec& spec = job->job().spec();
    const bool waits = IsEarly(*job) || job->busy;
    if (LacksWorkers(*job)) {
      if (!waits) ExplainLack(*job);
      continue;
    }
    if (Slots slots = FindSlots(spec, reserved); !waits && !slots.workers.empty()) {
      if (TryPlace(*job, slots)) return true;
    } else if (!waits && explained++ < kMaxExplained) {
      ExplainWait(*job, ahead);
    }
    if (ahead == nullptr) ahead = job;
    for (const v1::Device device : DevicesFor(spec.pipeline().device())) reserved.insert(device);
    if (reserved.size() == DevicesFor(v1::DEVICE_ANY).size() && explained >= kMaxExplained) break;
  }
  return false;
}

// True when the job was dealt with; false while something is found out, or its plan is made.
bool Scheduler::TryPlace(LiveJob& job, Slots& slots) {
  if (!job.checked.has_value() || !job.checked->layers.has_value()) {
    BeginCheck(job);
    return false;
  }
  const int layers = static_cast<int>(job.checked->layers->size());
  if (static_cast<int>(slots.workers.size()) > layers) slots.workers.resize(layers);
  const bool measure = NeedsMeasuring(job.job().spec(), layers, static_cast<int>(slots.workers.size()));
  if (const auto kind = UnmeasuredKind(job, slots.workers); measure && kind.has_value()) {
    BeginMeasuring(job, *kind);
    return false;
  }
  if (measure && !FindLinks(job, slots)) return false;
  Place(job, slots);
  return !job.busy;
}

// All workers of one kind of device; GPUs first where the job takes any.
Scheduler::Slots Scheduler::FindSlots(const v1::JobSpec& spec, const std::set<v1::Device>& reserved) {
  for (v1::Device device : DevicesFor(spec.pipeline().device())) {
    if (reserved.contains(device)) continue;
    std::vector<WorkerEntry*> idle = cluster_->registry().Idle(device);
    const int count = WorkersFor(spec, static_cast<int>(idle.size()));
    if (count == 0) continue;
    idle.resize(count);
    return {.workers = std::move(idle), .links = {}};
  }
  return {};
}

int Scheduler::CountConnected(const v1::JobSpec& spec) {
  size_t most = 0;
  for (v1::Device device : DevicesFor(spec.pipeline().device())) {
    std::vector<WorkerEntry*> connected = cluster_->registry().Connected(device);
    std::erase_if(connected, [](const WorkerEntry* worker) { return !worker->may_get_work(); });
    most = std::max(most, connected.size());
  }
  return static_cast<int>(most);
}

std::string Scheduler::DescribeUnfit(const v1::JobSpec& spec) {
  std::map<std::string_view, std::set<std::string>> names;  // By why.
  for (v1::Device device : DevicesFor(spec.pipeline().device())) {
    for (const WorkerEntry* worker : cluster_->registry().Connected(device)) {
      if (worker->state == v1::Worker::STATE_UNREACHABLE) names["unreachable"].insert(worker->name());
      if (worker->drained) names["drained"].insert(worker->name());
    }
  }
  std::string text;
  for (const auto& [why, workers] : names) {
    absl::StrAppend(&text, "; ", absl::StrJoin(workers, ", "), workers.size() == 1 ? " is " : " are ", AbslView(why));
  }
  return text;
}

// Whether it needs more workers than are connected.
bool Scheduler::LacksWorkers(const LiveJob& job) {
  return LeastWorkers(job.job().spec()) > CountConnected(job.job().spec());
}

// Because somebody will ask why.
void Scheduler::ExplainLack(LiveJob& job) {
  const v1::JobSpec& spec = job.job().spec();
  const int connected = CountConnected(spec);
  const int64_t least = LeastWorkers(spec);
  const char* kind = spec.pipeline().device() == v1::DEVICE_CUDA  ? " with a GPU"
                     : spec.pipeline().device() == v1::DEVICE_CPU ? " on a CPU"
                                                                  : "";
  book_->Explain(job, "orchestrator",
                 absl::StrCat(RestartNote(job), "needs ", least, least == 1 ? " worker" : " workers", kind, "; ",
                              connected, connected == 1 ? " is" : " are", " connected", DescribeUnfit(spec)));
}

void Scheduler::ExplainWait(LiveJob& job, const LiveJob* ahead) {
  const int64_t least = LeastWorkers(job.job().spec());
  const std::string reason = ahead != nullptr
                                 ? absl::StrCat("waits behind ", ahead->id())
                                 : absl::StrCat("waits for ", least, least == 1 ? " idle worker" : " idle workers");
  book_->Explain(job, "orchestrator", absl::StrCat(RestartNote(job), reason));
}

bool Scheduler::IsEarly(const LiveJob& job) {
  if (!job.job().has_restart_time()) return false;
  const absl::Time when = FromTimestamp(job.job().restart_time());
  if (when <= loop_->Now()) return false;
  if (when < next_restart_) {
    next_restart_ = when;
    loop_->PostAfter(when - loop_->Now(), [this, when] {
      if (next_restart_ == when) next_restart_ = absl::InfiniteFuture();
      ScheduleSoon();
    });
  }
  return true;
}

void Scheduler::BeginCheck(LiveJob& job) {
  job.busy = true;
  checker_->Check(job.job().spec(), job.stored.files, job.stored.resume,
                  [this, id = job.id()](absl::StatusOr<CheckedSpec> checked) { OnChecked(id, std::move(checked)); });
}

void Scheduler::OnChecked(const std::string& id, absl::StatusOr<CheckedSpec> checked) {
  LiveJob* job = book_->Find(id);
  if (job == nullptr) return;
  job->busy = false;
  if (absl::IsResourceExhausted(checked.status())) return RetryLater();
  if (!checked.ok()) {
    Fail(*job, PlainFailure(checked.status()));
  } else if (!checked->weights.ok()) {
    Fail(*job, PlainFailure(checked->weights));
  } else {
    for (const std::string& note : checked->notes) book_->Warn(*job, note);
    job->checked = *std::move(checked);
    if (!job->checked->layers.has_value()) return OnIncomplete(*job);
  }
  ScheduleSoon();
}

// The model waits for a worker that looks at it, but not for ever for one that does not answer.
void Scheduler::OnIncomplete(LiveJob& job) {
  if (absl::IsDeadlineExceeded(job.checked->undescribed) && ++job.unanswered_checks >= kMaxUnansweredChecks) {
    Fail(job, PlainFailure(absl::DeadlineExceededError(absl::StrCat("no worker could describe the model within ",
                                                                    absl::FormatDuration(SpecChecker::kInspectTimeout),
                                                                    "; ", kMaxUnansweredChecks, " tries"))));
    return ScheduleSoon();
  }
  RetryLater();
}

void Scheduler::BeginMeasuring(LiveJob& job, const std::string& kind) {
  job.busy = true;
  profiler_->Measure(
      MakeInspect(job.checked->spec, job.checked->facts, job.checked->files, /*measure=*/true), kind,
      job.checked->layers->size(), absl::StrCat("job ", job.id()),
      [this, id = job.id(), kind](absl::StatusOr<LayerInfos> layers) { OnMeasured(id, kind, std::move(layers)); });
}

void Scheduler::OnMeasured(const std::string& id, const std::string& kind, absl::StatusOr<LayerInfos> layers) {
  LiveJob* job = book_->Find(id);
  if (job == nullptr) return;
  job->busy = false;
  if (absl::IsUnavailable(layers.status())) return RetryLater();
  if (layers.ok()) {
    job->measured[kind] = *std::move(layers);
  } else {
    Fail(*job, PlainFailure(layers.status()));
  }
  ScheduleSoon();
}

// Fills in the links between the workers, as far as is known. False: they are measured first.
bool Scheduler::FindLinks(LiveJob& job, Slots& slots) {
  std::vector<v1::Hello> hellos;
  for (const WorkerEntry* worker : slots.workers) hellos.push_back(worker->hello);
  std::optional<Links> links = links_.Find(hellos);
  if (links.has_value()) slots.links = *std::move(links);
  if (!slots.links.empty() || job.link_tries >= kMaxLinkTries) return true;
  BeginMeasuringLinks(job, slots);
  return false;
}

void Scheduler::BeginMeasuringLinks(LiveJob& job, const Slots& slots) {
  job.busy = true;
  ++job.link_tries;
  spdlog::info("job {}: its workers measure the links between them", job.id());
  links_.Measure(job.id(), slots.workers,
                 [this, id = job.id()](const absl::Status& measured) { OnLinksMeasured(id, measured); });
}

// Without links the cut is as good as the layers' times alone can make it. After the loss of a worker others may be
// chosen, whose links can be measured.
void Scheduler::OnLinksMeasured(const std::string& id, const absl::Status& measured) {
  LiveJob* job = book_->Find(id);
  if (job == nullptr) return;
  job->busy = false;
  if (!measured.ok()) {
    if (!absl::IsUnavailable(measured)) job->link_tries = kMaxLinkTries;
    spdlog::warn("job {}: the links between its workers could not be measured ({}); it {}", id,
                 StdView(measured.message()), job->link_tries < kMaxLinkTries ? "tries again" : "goes on without");
  }
  ScheduleSoon();
}

void Scheduler::RetryLater() {
  loop_->PostAfter(kRetry, [this] { ScheduleSoon(); });
}

absl::StatusOr<AttemptSetup> Scheduler::Prepare(LiveJob& job, const Slots& slots) {
  AttemptSetup setup{.id = {},
                     .spec = job.checked->spec,
                     .plan = {},
                     .workers = {},
                     .files = job.checked->files,
                     .resume = {},
                     .forecast = {}};
  setup.id.set_job(job.id());
  setup.id.set_attempt(job.job().attempt() + 1);
  for (const WorkerEntry* worker : slots.workers) setup.workers.push_back(worker->name());
  GPIPE_ASSIGN_OR_RETURN(setup.resume, book_->store().LatestCheckpoint(job.id()));
  if (!setup.resume.has_value()) setup.resume = job.stored.resume;
  return setup;
}

void Scheduler::Place(LiveJob& job, const Slots& slots) {
  absl::StatusOr<AttemptSetup> setup = Prepare(job, slots);
  if (!setup.ok()) return Fail(job, PlainFailure(setup.status()));
  PlanInput input{.spec = setup->spec, .facts = job.checked->facts, .layers = *job.checked->layers};
  input.measured = job.measured;
  for (const WorkerEntry* worker : slots.workers) input.hosts.push_back(worker->hello);
  input.links = slots.links;
  input.first_step = setup->resume.has_value() ? setup->resume->step : 0;
  input.ran_out_of_memory = job.job().last_failure().code() == kOutOfMemory;
  job.busy = true;
  const std::vector<v1::Hello> hosts = input.hosts;
  planner_->Make(std::move(input), [this, setup = *std::move(setup), hosts](absl::StatusOr<MadePlan> made) {
    OnPlanned(setup, hosts, std::move(made));
  });
}

void Scheduler::OnPlanned(AttemptSetup setup, const std::vector<v1::Hello>& hosts, absl::StatusOr<MadePlan> made) {
  LiveJob* job = book_->Find(setup.id.job());
  if (job == nullptr || closed_) return;
  job->busy = false;
  if (absl::IsUnavailable(made.status())) return RetryLater();
  const int most = WorkersFor(job->job().spec(), CountConnected(job->job().spec()));
  if (absl::IsResourceExhausted(made.status()) && static_cast<int>(hosts.size()) < most) {
    return book_->Explain(*job, "orchestrator",
                          absl::StrCat("waits for workers that are busy: ", made.status().message()));
  }
  absl::Status status = made.status();
  // What the attempt measures again must not be there twice.
  if (made.ok()) status = book_->store().DropMetricsAfter(job->id(), setup.resume.has_value() ? setup.resume->step : 0);
  if (!status.ok()) {
    Fail(*job, PlainFailure(status));
  } else if (AreIdle(hosts)) {
    setup.plan = std::move(made->plan);
    setup.forecast = std::move(made->forecast);
    setup.checkpoint = made->checkpoint;
    Start(*job, std::move(setup));
  }
  ScheduleSoon();  // Also when a worker has gone meanwhile: there will be another plan.
}

bool Scheduler::AreIdle(const std::vector<v1::Hello>& hosts) const {
  return std::ranges::all_of(hosts, [this](const v1::Hello& host) {
    const WorkerEntry* worker = cluster_->registry().Find(host.name());
    return worker != nullptr && worker->state == v1::Worker::STATE_IDLE && !worker->drained &&
           worker->hello.incarnation() == host.incarnation();
  });
}

void Scheduler::Start(LiveJob& job, AttemptSetup setup) {
  FillJob(job, setup);
  job.lines = {};
  std::string message = absl::StrCat("attempt ", setup.id.attempt(), " on ", absl::StrJoin(setup.workers, ", "));
  if (setup.resume.has_value()) absl::StrAppend(&message, ", from the checkpoint of step ", setup.resume->step);
  if (!Apply(job, JobEvent::kPlaced, "orchestrator", message).ok()) return;
  job.attempt = std::make_unique<Attempt>(loop_, cluster_, this, std::move(setup));
  book_->UpdateCycleWatch(job);
  job.joining = 0;
  UpdateHold(job);
  job.attempt->Start();
}

void Scheduler::FillJob(LiveJob& job, const AttemptSetup& setup) {
  v1::Job& filled = job.job();
  filled.set_attempt(setup.id.attempt());
  filled.mutable_workers()->Assign(setup.workers.begin(), setup.workers.end());
  *filled.mutable_stage_worker() = setup.plan.stage_worker();
  filled.clear_balance();
  for (const v1::Stage& stage : setup.plan.stages()) filled.add_balance(stage.layer_count());
  filled.set_checkpoint(setup.checkpoint);
  filled.clear_forecast();
  if (setup.forecast.has_value()) *filled.mutable_forecast() = *setup.forecast;
  filled.set_rounds_done(0);
  // How many a client will ask for nobody knows.
  const bool asked = spec::HasClientData(setup.spec);
  filled.set_rounds_total(asked ? 0 : pipeline::CountRounds(FromProto(setup.plan.timeline())));
  filled.set_steps_done(setup.plan.timeline().first_step());
  filled.clear_last_step();
  filled.clear_restart_time();
  filled.set_steps_total(setup.plan.timeline().steps());
}

}  // namespace gpipe::orchestrator
