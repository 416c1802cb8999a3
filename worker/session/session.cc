#include "worker/session/session.h"

#include <algorithm>
#include <thread>
#include <utility>

#include "absl/hash/hash.h"
#include "absl/strings/str_cat.h"
#include "common/grpc_status.h"
#include "common/logging.h"
#include "common/status_macros.h"
#include "spdlog/spdlog.h"

namespace gpipe::worker {
namespace {

// A new phase of the engine's activity is sent at most this often.
constexpr absl::Duration kActivityInterval = absl::Milliseconds(50);

// The orchestrator is there and does not want this worker as it is.
bool IsRefusal(const absl::Status& status) {
  switch (status.code()) {
    case absl::StatusCode::kInvalidArgument:
    case absl::StatusCode::kAlreadyExists:
    case absl::StatusCode::kFailedPrecondition:
    case absl::StatusCode::kPermissionDenied:
    case absl::StatusCode::kUnauthenticated:
    case absl::StatusCode::kUnimplemented:
      return true;
    default:
      return false;
  }
}

}  // namespace

Session::Session(SessionOptions options, Stub& stub, AttemptHost& host, Inspector& inspector, Surveyor& surveyor,
                 Outbox& outbox)
    : options_(std::move(options)),
      stub_(stub),
      host_(host),
      inspector_(inspector),
      surveyor_(surveyor),
      outbox_(outbox),
      backoff_(options_.first_backoff, options_.max_backoff, absl::HashOf(options_.hello.incarnation())) {}

absl::Status Session::Run() {
  SetThreadName("session");
  while (true) {
    const absl::Status ended = RunOnce();
    if (stopping()) return absl::OkStatus();
    GPIPE_RETURN_IF_ERROR(Consider(ended));
    if (!Sleep(backoff_.Next())) return absl::OkStatus();
  }
}

void Session::Leave(const std::string& reason, absl::Duration patience) {
  v1::WorkerMessage message;
  message.mutable_leaving()->set_reason(reason);
  outbox_.Send(std::move(message));
  const absl::Time deadline = clock_.Now() + patience;
  while (!LeaveSettled() && clock_.Now() < deadline) leave_changed_.WaitFor(deadline - clock_.Now());
  if (!LeaveSettled()) spdlog::warn("leaving without the orchestrator's word after {}", absl::FormatDuration(patience));
  Stop();
}

void Session::Stop() {
  {
    absl::MutexLock lock(&mutex_);
    stopping_ = true;
    if (context_ != nullptr) context_->TryCancel();
  }
  stopped_.Notify();
}

bool Session::LeaveSettled() {
  absl::MutexLock lock(&mutex_);
  return leave_granted_ || !welcomed_;
}

bool Session::stopping() {
  absl::MutexLock lock(&mutex_);
  return stopping_;
}

absl::Status Session::RunOnce() {
  grpc::ClientContext context;
  {
    absl::MutexLock lock(&mutex_);
    if (stopping_) return absl::OkStatus();
    context_ = &context;
  }
  auto stream = stub_.Session(&context);
  const absl::Status conversed = Converse(context, *stream);
  const absl::Status finished = FromGrpc(stream->Finish());
  {
    absl::MutexLock lock(&mutex_);
    context_ = nullptr;
    welcomed_ = false;
  }
  leave_changed_.Notify();
  const absl::Status ended = conversed.ok() ? finished : conversed;
  host_.AbortAndWait(absl::CancelledError(absl::StrCat("lost the orchestrator: ", ended.message())));
  return ended;
}

absl::Status Session::Converse(grpc::ClientContext& context, Stream& stream) {
  v1::WorkerMessage hello;
  *hello.mutable_hello() = options_.hello;
  lease_.Begin(clock_.Now(), options_.welcome_patience);
  if (options_.clock != nullptr) options_.clock->Forget();
  if (!stream.Write(hello)) return absl::OkStatus();  // Finish says why.
  outbox_.Open();
  std::thread writer([&] {
    Write(context, stream);
    outbox_.Close();  // Nobody makes room any more: no sender may wait for it.
  });
  const absl::Status status = Read(stream);
  if (!status.ok()) context.TryCancel();
  outbox_.Close();
  writer.join();
  if (clock_.Now() < lease_.deadline()) return status;
  return absl::UnavailableError("the orchestrator has been silent for too long");
}

absl::Status Session::Read(Stream& stream) {
  v1::OrchestratorMessage message;
  if (!stream.Read(&message)) return absl::OkStatus();
  GPIPE_RETURN_IF_ERROR(Welcome(message));
  while (stream.Read(&message)) {
    lease_.Renew(clock_.Now(), message.has_alive());
    Dispatch(message);
  }
  return absl::OkStatus();
}

absl::Status Session::Welcome(const v1::OrchestratorMessage& message) {
  if (!message.has_welcome() || message.welcome().heartbeat_millis() < 1 || message.welcome().lease_millis() < 1) {
    return absl::InternalError("the orchestrator's first message is no Welcome with a heartbeat and a lease");
  }
  lease_.Welcome(absl::Milliseconds(message.welcome().heartbeat_millis()),
                 absl::Milliseconds(message.welcome().lease_millis()));
  spdlog::info("connected to the orchestrator as {}", options_.hello.name());
  backoff_.Reset();
  last_end_ = absl::OkStatus();
  refused_since_ = absl::InfiniteFuture();
  {
    absl::MutexLock lock(&mutex_);
    welcomed_ = true;
  }
  outbox_.ActivityChanged();  // Wakes the writer: heartbeats begin.
  return absl::OkStatus();
}

void Session::Dispatch(v1::OrchestratorMessage& message) {
  switch (message.message_case()) {
    case v1::OrchestratorMessage::kInspect:
      return inspector_.Enqueue(std::move(*message.mutable_inspect()));
    case v1::OrchestratorMessage::kSurvey:
      return surveyor_.Enqueue(std::move(*message.mutable_survey()));
    case v1::OrchestratorMessage::kPrepare:
      return host_.Prepare(std::move(*message.mutable_prepare()));
    case v1::OrchestratorMessage::kMeasureLinks:
      return host_.MeasureLinks(std::move(*message.mutable_measure_links()));
    case v1::OrchestratorMessage::kGrant:
      return host_.Grant(message.grant());
    case v1::OrchestratorMessage::kRendezvousValue:
      return host_.OnRendezvousValue(message.rendezvous_value());
    case v1::OrchestratorMessage::kAbort:
      return host_.Abort(message.abort().attempt(), absl::CancelledError(message.abort().reason()));
    case v1::OrchestratorMessage::kRelease:
      return host_.Release(message.release().attempt());
    case v1::OrchestratorMessage::kLeaveGranted:
      return OnLeaveGranted();
    case v1::OrchestratorMessage::kAlive:
      return OnAlive(message.alive());
    case v1::OrchestratorMessage::kWelcome:
    case v1::OrchestratorMessage::MESSAGE_NOT_SET:
      spdlog::warn("an unexpected message from the orchestrator (kind {})", static_cast<int>(message.message_case()));
  }
}

// It has renewed the lease already.
void Session::OnAlive(const v1::Alive& alive) {
  if (options_.clock == nullptr) return;
  options_.clock->Add(alive.sent_nanos(), alive.answered_nanos(), SteadyNanos());
}

void Session::OnLeaveGranted() {
  {
    absl::MutexLock lock(&mutex_);
    leave_granted_ = true;
  }
  leave_changed_.Notify();
}

void Session::Write(grpc::ClientContext& context, Stream& stream) {
  SetThreadName("session-writer");
  absl::Time sent = absl::UnixEpoch();  // The last heartbeat.
  bool changed = false;
  while (true) {
    const absl::Duration heartbeat = lease_.heartbeat();
    const absl::Time due = sent + (changed ? std::min(kActivityInterval, heartbeat) : heartbeat);
    Outbox::Next next = outbox_.Wait(std::min(due, lease_.deadline()) - clock_.Now(), changed);
    if (next.closed) return;
    if (next.message && !stream.Write(*next.message)) return;  // The reader hears of it too.
    const absl::Time now = clock_.Now();
    if (now >= lease_.deadline()) return context.TryCancel();
    // Before Welcome there is nobody to hear it: the change stays for later.
    changed = next.activity_changed && lease_.heartbeat() < absl::InfiniteDuration();
    if (now < sent + (changed ? kActivityInterval : lease_.heartbeat())) continue;
    if (!WriteHeartbeat(stream)) return;
    sent = now;
    changed = false;
  }
}

bool Session::WriteHeartbeat(Stream& stream) {
  outbox_.TakeActivityChange();
  v1::WorkerMessage message;
  v1::Heartbeat& heartbeat = *message.mutable_heartbeat();
  *heartbeat.mutable_activity() = host_.activity();
  if (options_.device_use) *heartbeat.mutable_use() = options_.device_use();
  heartbeat.set_sent_nanos(SteadyNanos());
  return stream.Write(message);
}

absl::Status Session::Consider(const absl::Status& ended) {
  if (ended != last_end_) spdlog::warn("no session with the orchestrator: {}; trying again", ended.ToString());
  last_end_ = ended;
  if (!IsRefusal(ended)) {
    refused_since_ = absl::InfiniteFuture();
    return absl::OkStatus();
  }
  refused_since_ = std::min(refused_since_, clock_.Now());
  // What a worker says of itself will not change: a name that is none, say.
  const bool may_end = !absl::IsInvalidArgument(ended) && clock_.Now() - refused_since_ < options_.refusal_patience;
  return may_end ? absl::OkStatus() : ended;
}

bool Session::Sleep(absl::Duration length) {
  const absl::Time end = clock_.Now() + length;
  while (!stopping() && clock_.Now() < end) stopped_.WaitFor(end - clock_.Now());
  return !stopping();
}

}  // namespace gpipe::worker
