#include "orchestrator/cluster/cluster.h"

#include <utility>

#include "absl/strings/str_cat.h"
#include "common/printable.h"
#include "common/string_view.h"
#include "orchestrator/cluster/message_check.h"
#include "spdlog/spdlog.h"

namespace gpipe::orchestrator {
namespace {

// The attempt a message is about; null for messages that are about none.
const v1::AttemptId* AttemptOf(const v1::WorkerMessage& message) {
  switch (message.message_case()) {
    case v1::WorkerMessage::kPrepared:
      return &message.prepared().attempt();
    case v1::WorkerMessage::kProgress:
      return &message.progress().attempt();
    case v1::WorkerMessage::kRendezvousPut:
      return &message.rendezvous_put().attempt();
    case v1::WorkerMessage::kRendezvousGet:
      return &message.rendezvous_get().attempt();
    case v1::WorkerMessage::kCheckpointShard:
      return &message.checkpoint_shard().attempt();
    case v1::WorkerMessage::kTrained:
      return &message.trained().attempt();
    case v1::WorkerMessage::kFinished:
      return &message.finished().attempt();
    case v1::WorkerMessage::kFailed:
      return &message.failed().attempt();
    case v1::WorkerMessage::kReleased:
      return &message.released().attempt();
    case v1::WorkerMessage::kEvaluation:
      return &message.evaluation().attempt();
    case v1::WorkerMessage::kLossChecked:
      return &message.loss_checked().attempt();
    case v1::WorkerMessage::kLinksMeasured:
      return &message.links_measured().attempt();
    case v1::WorkerMessage::kLog:
      return &message.log().attempt();
    default:
      return nullptr;
  }
}

}  // namespace

Cluster::Cluster(EventLoop* loop, const Options& options)
    : loop_(loop), options_(options), inspector_(loop, &registry_), surveyor_(loop, &registry_) {
  ScheduleSweep();
}

void Cluster::OnOpened(SessionId id, std::shared_ptr<WorkerChannel> channel) {
  if (!closed_.ok()) return channel->Close(closed_);
  sessions_.emplace(id, Session{.channel = std::move(channel), .worker = "", .opened = loop_->Now()});
}

void Cluster::OnMessage(SessionId id, const v1::WorkerMessage& message) {
  auto found = sessions_.find(id);
  if (found == sessions_.end()) return;
  Session& session = found->second;
  if (session.worker.empty()) {
    if (message.has_hello()) return OnHello(session, message.hello());
    return Refuse(session, absl::InvalidArgumentError("the first message of a session must be hello"));
  }
  WorkerEntry* worker = registry_.Find(session.worker);
  if (worker == nullptr || worker->channel != session.channel) return;  // Lost meanwhile.
  worker->last_heard = loop_->Now();
  if (const absl::Status sane = CheckMessage(message); !sane.ok()) return Distrust(*worker, sane);
  switch (message.message_case()) {
    case v1::WorkerMessage::kHeartbeat:
      return OnHeartbeat(*worker, message.heartbeat());
    case v1::WorkerMessage::kInspected:
      return inspector_.OnInspected(*worker, message.inspected());
    case v1::WorkerMessage::kSurveyed:
      return surveyor_.OnSurveyed(*worker, message.surveyed());
    case v1::WorkerMessage::kLeaving:
      return OnLeaving(*worker, message.leaving());
    case v1::WorkerMessage::kHello:
    case v1::WorkerMessage::MESSAGE_NOT_SET:
      spdlog::warn("worker {} sent a message that means nothing here", worker->name());
      return;
    default:
      return OnAttemptMessage(*worker, message);
  }
}

// What else it says is not to be believed either.
void Cluster::Distrust(WorkerEntry& worker, const absl::Status& why) {
  const std::shared_ptr<WorkerChannel> channel = worker.channel;
  Lose(worker, absl::StrCat("it sent a message that cannot be true: ", why.message()));
  channel->Cancel(why);
}

void Cluster::OnEnded(SessionId id) {
  NoteIfStopped();
  auto node = sessions_.extract(id);
  if (node.empty() || node.mapped().worker.empty()) return;
  WorkerEntry* worker = registry_.Find(node.mapped().worker);
  if (worker == nullptr || worker->channel != node.mapped().channel) return;
  Lose(*worker, worker->may_leave ? "left as it had asked to" : "connection closed");
}

void Cluster::OnHello(Session& session, v1::Hello hello) {
  MakePrintable(hello);
  absl::StatusOr<WorkerEntry*> joined = registry_.Join(hello, session.channel, loop_->Now());
  if (!joined.ok()) return Refuse(session, joined.status());
  session.worker = hello.name();
  v1::OrchestratorMessage message;
  message.mutable_welcome()->set_heartbeat_millis(absl::ToInt64Milliseconds(options_.heartbeat));
  message.mutable_welcome()->set_lease_millis(absl::ToInt64Milliseconds(options_.lease));
  Send(**joined, std::move(message));
  listener_->OnWorkersChanged();
}

void Cluster::OnHeartbeat(WorkerEntry& worker, const v1::Heartbeat& heartbeat) {
  registry_.Beat(worker, heartbeat);
  v1::OrchestratorMessage message;
  message.mutable_alive()->set_sent_nanos(heartbeat.sent_nanos());
  message.mutable_alive()->set_answered_nanos(absl::ToUnixNanos(loop_->Now()));
  Send(worker, std::move(message));
  if (!worker.attempt.job().empty() && SameAttempt(worker.activity.attempt(), worker.attempt)) {
    listener_->OnActivity(worker);
  }
}

void Cluster::Refuse(Session& session, const absl::Status& why) {
  spdlog::warn("refused a session: {}", StdView(why.message()));
  session.channel->Close(why);
}

void Cluster::OnLeaving(WorkerEntry& worker, const v1::Leaving& leaving) {
  const std::string reason = Printable(leaving.reason());
  if (!registry_.Apply(worker, WorkerEvent::kLeave, reason).ok()) return;
  if (worker.attempt.job().empty()) return GrantLeave(worker);
  listener_->OnWorkerLeaving(worker, reason);
}

void Cluster::OnAttemptMessage(WorkerEntry& worker, const v1::WorkerMessage& message) {
  const v1::AttemptId& attempt = *AttemptOf(message);
  if (worker.attempt.job().empty() || !SameAttempt(attempt, worker.attempt)) {
    spdlog::info("ignored a message of worker {} about attempt {} of {}, which it does not have", worker.name(),
                 attempt.attempt(), attempt.job());
    return;
  }
  if (message.has_failed() && message.failed().has_activity()) worker.activity = message.failed().activity();
  listener_->OnAttemptMessage(worker, message);
  if (message.has_released()) OnReleased(worker);
}

// A worker may let go by itself after a failure of its own, before it is told to.
void Cluster::OnReleased(WorkerEntry& worker) {
  if (worker.attempt.job().empty()) return;
  if (worker.state == v1::Worker::STATE_ASSIGNED) BeginRelease(worker, WorkerEvent::kAbort, "it let go by itself");
  const std::string why = absl::StrCat("let go of attempt ", worker.attempt.attempt(), " of ", worker.attempt.job());
  if (!registry_.Apply(worker, WorkerEvent::kReleased, why).ok()) return;
  worker.attempt.Clear();
  worker.activity.Clear();
  listener_->OnWorkersChanged();
}

void Cluster::Send(const WorkerEntry& worker, v1::OrchestratorMessage message) {
  if (!worker.connected()) return;
  loop_->AfterCommit([channel = worker.channel, message = std::move(message)](const absl::Status& stored) {
    if (stored.ok()) channel->Send(message);
  });
}

void Cluster::Assign(WorkerEntry& worker, v1::Assignment assignment) {
  const v1::AttemptId attempt = assignment.attempt();
  v1::OrchestratorMessage message;
  *message.mutable_prepare() = std::move(assignment);
  BeginAttempt(worker, attempt, std::move(message));
}

void Cluster::Assign(WorkerEntry& worker, const v1::MeasureLinks& request) {
  v1::OrchestratorMessage message;
  *message.mutable_measure_links() = request;
  BeginAttempt(worker, request.attempt(), std::move(message));
}

void Cluster::BeginAttempt(WorkerEntry& worker, const v1::AttemptId& attempt, v1::OrchestratorMessage message) {
  worker.attempt = attempt;
  worker.activity.Clear();
  const std::string why = absl::StrCat("attempt ", worker.attempt.attempt(), " of ", worker.attempt.job());
  if (absl::Status applied = registry_.Apply(worker, WorkerEvent::kAssign, why); !applied.ok()) {
    spdlog::error("{}", StdView(applied.message()));
  }
  Send(worker, std::move(message));
}

void Cluster::BeginRelease(WorkerEntry& worker, WorkerEvent event, std::string_view why) {
  if (!registry_.Apply(worker, event, why).ok()) return;
  worker.releasing_since = loop_->Now();
}

void Cluster::Abort(WorkerEntry& worker, const v1::AttemptId& attempt, std::string_view reason) {
  if (!worker.connected() || !SameAttempt(worker.attempt, attempt)) return;
  if (worker.state != v1::Worker::STATE_RELEASING) BeginRelease(worker, WorkerEvent::kAbort, reason);
  v1::OrchestratorMessage message;
  *message.mutable_abort()->mutable_attempt() = attempt;
  message.mutable_abort()->set_reason(std::string(reason));
  Send(worker, std::move(message));
}

void Cluster::Release(WorkerEntry& worker, const v1::AttemptId& attempt) {
  if (!worker.connected() || !SameAttempt(worker.attempt, attempt)) return;
  BeginRelease(worker, WorkerEvent::kRelease, absl::StrCat(attempt.job(), " is done"));
  v1::OrchestratorMessage message;
  *message.mutable_release()->mutable_attempt() = attempt;
  Send(worker, std::move(message));
}

void Cluster::Undrain(std::string_view name) {
  registry_.Undrain(name);
  listener_->OnWorkersChanged();
}

void Cluster::GrantLeave(WorkerEntry& worker) {
  worker.may_leave = true;
  v1::OrchestratorMessage message;
  message.mutable_leave_granted();
  Send(worker, std::move(message));
}

void Cluster::Lose(WorkerEntry& worker, std::string_view why) {
  if (!registry_.Apply(worker, WorkerEvent::kLost, why).ok()) return;
  inspector_.OnLost(worker);
  surveyor_.OnLost(worker);
  if (!worker.attempt.job().empty()) listener_->OnWorkerLost(worker, why);
  worker.attempt.Clear();
}

void Cluster::ScheduleSweep() {
  const absl::Duration interval = options_.lease / 4;
  sweep_due_ = loop_->Now() + interval;
  loop_->PostAfter(interval, [this] { Sweep(); });
}

void Cluster::NoteIfStopped() {
  const absl::Time now = loop_->Now();
  if (now - sweep_due_ > options_.lease / 2) woke_ = now;
}

// When the sweep itself is late, this process was stopped, and heartbeats may still lie unread: everyone gets a new
// lease.
void Cluster::Sweep() {
  NoteIfStopped();
  ScheduleSweep();
  const absl::Time now = loop_->Now();
  for (WorkerEntry* worker : registry_.All()) {
    if (!worker->connected()) continue;
    if (woke_ == now) worker->last_heard = now;
    CheckLease(*worker);
  }
  if (registry_.TryUnreachableAgain(now)) listener_->OnWorkersChanged();
  for (auto& [id, session] : sessions_) {
    if (!session.worker.empty() || now - session.opened < options_.lease) continue;
    session.channel->Cancel(absl::DeadlineExceededError("no hello within a lease"));
  }
}

void Cluster::CheckLease(WorkerEntry& worker) {
  const absl::Time now = loop_->Now();
  const bool releasing = worker.state == v1::Worker::STATE_RELEASING ||
                         (worker.state == v1::Worker::STATE_UNREACHABLE && !worker.attempt.job().empty());
  std::string why;
  if (now - worker.last_heard > options_.lease) {
    why = absl::StrCat("silent for ", absl::FormatDuration(options_.lease));
  } else if (releasing && now - worker.releasing_since > options_.lease + absl::Seconds(5)) {
    why = absl::StrCat("did not let go of ", worker.attempt.job());
  } else {
    return;
  }
  std::shared_ptr<WorkerChannel> channel = worker.channel;
  Lose(worker, why);
  channel->Cancel(absl::UnavailableError(absl::StrCat("this worker counts as lost: ", why)));
}

void Cluster::Shutdown(const absl::Status& reason) {
  closed_ = reason;
  loop_->AfterCommit([this, reason](const absl::Status&) {
    for (auto& [id, session] : sessions_) session.channel->Close(reason);
  });
}

}  // namespace gpipe::orchestrator
