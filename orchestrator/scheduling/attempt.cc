#include "orchestrator/scheduling/attempt.h"

#include <algorithm>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "common/attempt_id.h"
#include "common/error_reason.h"
#include "common/spec/client_data.h"
#include "common/spec/validator.h"
#include "common/status_macros.h"
#include "common/string_view.h"
#include "orchestrator/cluster/fetch_time.h"
#include "orchestrator/planning/job_rounds.h"
#include "orchestrator/planning/worker_plans.h"
#include "orchestrator/scheduling/failure.h"
#include "spdlog/spdlog.h"

namespace gpipe::orchestrator {

namespace {

std::unique_ptr<RoundSource> SourceOf(AttemptSetup& setup) {
  if (spec::HasClientData(setup.spec))
    return std::make_unique<AskedRounds>(spec::WithDefaults(setup.spec), &setup.plan);
  return std::make_unique<JobRounds>(setup.spec, setup.plan);
}

}  // namespace

Attempt::Attempt(EventLoop* loop, Cluster* cluster, AttemptHost* host, AttemptSetup setup)
    : loop_(loop),
      cluster_(cluster),
      host_(host),
      setup_(std::move(setup)),
      source_(SourceOf(setup_)),
      asked_(dynamic_cast<AskedRounds*>(source_.get())),
      saved_step_(setup_.plan.timeline().first_step()),
      window_(setup_.plan, source_.get(), static_cast<int>(setup_.workers.size()),
              setup_.spec.pipeline().clock_window()),
      steps_(setup_.plan, static_cast<int>(setup_.workers.size())),
      stages_(setup_.plan, setup_.workers),
      answers_(static_cast<int>(setup_.workers.size())),
      rendezvous_(setup_.id,
                  [this](int index, v1::OrchestratorMessage message) { SendTo(index, std::move(message)); }) {
  for (const std::string& name : setup_.workers) {
    index_of_.emplace(name, static_cast<int>(members_.size()));
    members_.push_back({.name = name});
  }
}

Attempt::~Attempt() { CancelTimers(); }

void Attempt::Start() {
  SendAssignments();
  begin_timer_ = loop_->PostAfter(2 * cluster_->options().lease, [this] { CheckBegun(); });
  absl::Duration timeout = kPrepareTimeout + TimeToFetch(setup_.files);
  if (setup_.resume.has_value()) timeout += TimeToFetch(setup_.resume->files);
  deadline_timer_ = loop_->PostAfter(timeout, [this, timeout] {
    std::vector<std::string> late;
    for (const Member& member : members_) {
      if (!member.prepared) late.push_back(member.name);
    }
    Fail(PlainFailure(absl::DeadlineExceededError(
        absl::StrCat("not prepared within ", absl::FormatDuration(timeout), ": ", absl::StrJoin(late, ", ")))));
  });
}

// A worker takes its assignment up at once, and says so with its next heartbeat.
void Attempt::CheckBegun() {
  for (size_t i = 0; i < members_.size(); ++i) {
    const WorkerEntry* worker = cluster_->registry().Find(members_[i].name);
    const bool begun = worker != nullptr && SameAttempt(worker->activity.attempt(), setup_.id);
    if (begun || members_[i].prepared || members_[i].gone) continue;
    return Fail(FailureOf(static_cast<int>(i), "STALLED", "failed", "it has not taken up what it was assigned"));
  }
}

void Attempt::SendAssignments() {
  v1::Assignment assignment;
  *assignment.mutable_attempt() = setup_.id;
  *assignment.mutable_spec() = setup_.spec;
  assignment.mutable_files()->insert(setup_.files.begin(), setup_.files.end());
  if (setup_.resume.has_value()) {
    for (const auto& ref : TensorFilesOf(setup_.resume->files, kModelStem)) *assignment.add_resume_model() = ref;
    for (const auto& ref : TensorFilesOf(setup_.resume->files, kOptimizerStem)) {
      *assignment.add_resume_optimizer() = ref;
    }
  }
  for (const std::string& name : setup_.workers) {
    const v1::Hello& hello = cluster_->registry().Find(name)->hello;
    v1::Peer& peer = *assignment.add_peers();
    peer.set_name(name);
    peer.set_data_address(hello.data_address());
    peer.set_device(hello.device());
  }
  *assignment.mutable_first() = window_.TakeNews();
  if (setup_.spec.has_infer()) assignment.set_output_samples(setup_.plan.timeline().samples());
  const WorkerPlans plans(setup_.plan);
  for (size_t i = 0; i < setup_.workers.size(); ++i) {
    v1::Assignment own = assignment;
    own.set_worker_index(static_cast<int>(i));
    *own.mutable_plan() = plans.For(static_cast<int>(i));
    cluster_->Assign(*cluster_->registry().Find(setup_.workers[i]), std::move(own));
  }
  // The workers have the rows now; nobody else asks for them.
  for (v1::Program& program : *setup_.plan.mutable_programs()) {
    google::protobuf::RepeatedPtrField<v1::Row>().Swap(program.mutable_rows());
  }
}

int Attempt::IndexOf(std::string_view worker) const { return index_of_.find(worker)->second; }

void Attempt::OnMessage(WorkerEntry& worker, const v1::WorkerMessage& message) {
  const int index = IndexOf(worker.name());
  if (message.has_failed()) return OnFailed(index, message.failed());
  if (message.has_released()) return OnReleased(index);
  if (phase_ != Phase::kPreparing && phase_ != Phase::kRunning) return;
  switch (message.message_case()) {
    case v1::WorkerMessage::kPrepared:
      return OnPrepared(index);
    case v1::WorkerMessage::kProgress:
      return OnProgress(index, message.progress());
    case v1::WorkerMessage::kRendezvousPut:
      return OnRendezvousPut(index, message.rendezvous_put());
    case v1::WorkerMessage::kRendezvousGet:
      return rendezvous_.OnGet(index, message.rendezvous_get());
    case v1::WorkerMessage::kCheckpointShard:
      return OnCheckpointShard(index, message.checkpoint_shard());
    case v1::WorkerMessage::kTrained:
      return OnTrained(index, message.trained());
    case v1::WorkerMessage::kFinished:
      return OnFinished(index, message.finished());
    case v1::WorkerMessage::kEvaluation: {
      const v1::Evaluation& evaluation = message.evaluation();
      v1::EvaluationMetrics metrics;
      metrics.set_step(evaluation.step());
      metrics.set_loss(evaluation.loss());
      if (evaluation.has_accuracy()) metrics.set_accuracy(evaluation.accuracy());
      metrics.set_samples(evaluation.samples());
      return host_->OnEvaluation(*this, metrics);
    }
    case v1::WorkerMessage::kLossChecked:
      return host_->OnLossChecked(*this, message.loss_checked());
    default:
      return;
  }
}

void Attempt::OnPrepared(int index) {
  if (!std::exchange(members_[index].prepared, true)) ++prepared_;
  if (phase_ != Phase::kPreparing || prepared_ < members_.size()) return;
  phase_ = Phase::kRunning;
  SetReached();
  // A consequence that came before is being judged: its timer stays.
  if (!suspect_.has_value()) loop_->CancelTimer(deadline_timer_);
  WatchForStall();
  host_->OnRunning(*this);
  SendGrants();
}

void Attempt::OnProgress(int index, const v1::Progress& progress) {
  if (phase_ != Phase::kRunning) return;
  absl::Status sane = CollectActions(index, progress);  // Before the window forgets their rounds.
  sane.Update(window_.Complete(index, {progress.round(), progress.cycle()}));
  if (!sane.ok()) return Distrust(index, sane);
  for (const v1::CycleDone& cycle : cycles_.Take(window_.ticks_done())) host_->OnCycle(*this, cycle);
  if (sane = CollectRounds(index, progress); !sane.ok()) return Distrust(index, sane);
  LetLeave();
  SendGrants();
}

absl::Status Attempt::CollectActions(int index, const v1::Progress& progress) {
  for (const v1::ActionDone& action : progress.actions()) {
    const std::optional<int64_t> tick = window_.TickOf({action.round(), action.cycle()});
    if (!tick.has_value()) continue;
    GPIPE_RETURN_IF_ERROR(stages_.Add(index, action));
    cycles_.Add(*tick, action);
  }
  return absl::OkStatus();
}

absl::Status Attempt::CollectRounds(int index, const v1::Progress& progress) {
  for (const v1::RoundDone& round : progress.rounds()) {
    GPIPE_ASSIGN_OR_RETURN(const std::optional<v1::StepMetrics> step, steps_.Add(index, round));
    GPIPE_ASSIGN_OR_RETURN(std::optional<StepDetail> detail, stages_.Add(index, round));
    if (asked_ != nullptr) Answer(round);
    if (!step.has_value() || !detail.has_value()) continue;
    window_.set_round_seconds(step->step_seconds());
    detail->stages.set_step(step->step());
    host_->OnStep(*this, *step, *std::move(detail));
  }
  return absl::OkStatus();
}

// A worker that says what cannot be has lost count, and what it computes is not to be believed either.
void Attempt::Distrust(int index, const absl::Status& why) {
  Fail(FailureOf(index, "INTERNAL", "failed", absl::StrCat("it reported what cannot be: ", why.message())));
}

void Attempt::OnCheckpointShard(int index, const v1::CheckpointShard& shard) {
  if (shards_.size() >= kMaxOpenCheckpoints && !shards_.contains(shard.step())) return;
  auto& parts = shards_[shard.step()];
  parts.emplace(index, shard);
  if (parts.size() < members_.size()) return;
  std::vector<v1::CheckpointShard> all;
  for (auto& [worker, part] : parts) all.push_back(std::move(part));
  shards_.erase(shard.step());
  host_->OnCheckpoint(*this, all);
}

void Attempt::OnTrained(int index, const v1::Trained& trained) {
  std::optional<v1::Finished>& part = members_[index].trained;
  if (part.has_value()) return;
  part.emplace();
  *part->mutable_model() = trained.model();
  if (++trained_ < members_.size()) return;
  std::vector<v1::Finished> parts;
  for (const Member& member : members_) parts.push_back(*member.trained);
  host_->OnTrained(*this, parts);
}

void Attempt::OnFinished(int index, const v1::Finished& finished) {
  if (phase_ != Phase::kRunning) return;
  if (!members_[index].result.has_value()) ++finished_;
  members_[index].result = finished;
  spdlog::info("{}: {} has finished ({} of {})", setup_.id.job(), members_[index].name, finished_, members_.size());
  if (finished_ < members_.size()) return;
  std::vector<v1::Finished> results;
  for (const Member& member : members_) results.push_back(*member.result);
  phase_ = Phase::kFinished;
  CancelTimers();
  host_->OnFinished(*this, results);
}

void Attempt::OnRendezvousPut(int index, const v1::RendezvousPut& put) {
  const absl::Status status = rendezvous_.OnPut(put);
  if (!status.ok()) Fail(FailureOf(index, "INTERNAL", "failed", StdView(status.message())));
}

// The storing of the model, which nobody asked for, has no answer.
void Attempt::Answer(const v1::RoundDone& round) {
  std::optional<v1::RoundAnswer> answer = answers_.Add(round);
  if (answer.has_value() && answer->round() < asked_->asked()) host_->OnAnswer(*this, *answer);
}

absl::Status Attempt::Ask(const v1::AskedRound& round) {
  if (asked_ == nullptr || phase_ == Phase::kPreparing) {
    return absl::FailedPreconditionError("the job does not wait for rounds");
  }
  if (phase_ != Phase::kRunning) return absl::OkStatus();  // Its end is on its way to the client.
  GPIPE_RETURN_IF_ERROR(asked_->Ask(round));
  SendGrants();
  return absl::OkStatus();
}

void Attempt::CloseRounds() {
  if (asked_ == nullptr) return;
  asked_->Close();
  SendGrants();
}

void Attempt::SendTo(int index, v1::OrchestratorMessage message) {
  const WorkerEntry* worker = cluster_->registry().Find(members_[index].name);
  if (worker != nullptr && !members_[index].gone) cluster_->Send(*worker, std::move(message));
}

void Attempt::SendGrants() {
  // A pause must not keep a worker that leaves from its checkpoint.
  const bool waits = (paused_ && !leave_step_.has_value()) || held_;
  if (phase_ != Phase::kRunning || waits) return;
  std::optional<Position> position = window_.NextGrant();
  if (!position.has_value()) return;
  v1::OrchestratorMessage message;
  *message.mutable_grant()->mutable_attempt() = setup_.id;
  message.mutable_grant()->set_round(position->round);
  message.mutable_grant()->set_cycle(position->cycle);
  *message.mutable_grant()->mutable_next() = window_.TakeNews();
  const std::vector<int> programs = asked_ == nullptr ? std::vector<int>() : asked_->TakeNewPrograms();
  for (size_t i = 0; i < members_.size(); ++i) {
    v1::OrchestratorMessage own = message;
    AddPrograms(*own.mutable_grant()->mutable_next(), static_cast<int>(i), programs);
    SendTo(static_cast<int>(i), std::move(own));
  }
  for (const int program : programs) setup_.plan.mutable_programs(program)->clear_rows();
}

// Each worker gets its own row.
void Attempt::AddPrograms(v1::Rounds& rounds, int worker, const std::vector<int>& programs) const {
  for (const int position : programs) {
    const v1::Program& whole = setup_.plan.programs(position);
    v1::Program& own = *rounds.add_programs();
    own.set_kind(whole.kind());
    own.set_batch_size(whole.batch_size());
    *own.mutable_micro_batch_sizes() = whole.micro_batch_sizes();
    own.set_cycles(whole.cycles());
    for (int row = 0; row < whole.rows_size(); ++row) own.add_rows();
    *own.mutable_rows(worker) = whole.rows(worker);
  }
}

void Attempt::Pause() { paused_ = true; }

void Attempt::Resume() {
  paused_ = false;
  SendGrants();
}

void Attempt::Hold(bool held) {
  held_ = held;
  SendGrants();
}

absl::StatusOr<int64_t> Attempt::Checkpoint() {
  std::optional<int64_t> step;
  if (phase_ == Phase::kRunning) step = source_->AddCheckpoint(RoundSource::Then::kGoOn);
  if (step.has_value()) return *step;
  return WithReason(
      absl::FailedPreconditionError("there is no training step to come that its workers do not know of yet, "
                                    "before which a checkpoint could be written"),
      reason::kWrongJobState);
}

void Attempt::WatchCycles(bool wanted) {
  if (!wanted) return cycles_.Stop();
  if (!cycles_.started()) cycles_.Start(window_.most_ticks_done());
}

void Attempt::Release() {
  phase_ = Phase::kOver;
  CancelTimers();
  for (const Member& member : members_) {
    if (!member.gone) cluster_->Release(*cluster_->registry().Find(member.name), setup_.id);
  }
}

std::vector<v1::Activity> Attempt::Activities() const {
  std::vector<v1::Activity> activities;
  for (size_t i = 0; i < members_.size(); ++i) activities.push_back(ActivityOf(static_cast<int>(i)));
  return activities;
}

}  // namespace gpipe::orchestrator
