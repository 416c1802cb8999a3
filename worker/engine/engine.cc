#include "worker/engine/engine.h"

#include <utility>

#include "absl/cleanup/cleanup.h"
#include "common/attempt_id.h"
#include "common/grpc_status.h"
#include "common/logging.h"
#include "common/status_macros.h"
#include "common/string_view.h"
#include "spdlog/spdlog.h"
#include "worker/comm/reach.h"
#include "worker/engine/own_failure.h"
#include "worker/engine/scratch_folder.h"
#include "worker/engine/torch_setup.h"
#include "worker/model/graph_pool.h"
#include "worker/model/memory_meter.h"
#include "worker/torch_status.h"

namespace gpipe::worker {
namespace {

v1::WorkerMessage FailedMessage(const v1::AttemptId& attempt, const absl::Status& status, v1::Activity activity,
                                bool consequence) {
  v1::WorkerMessage message;
  v1::Failed& failed = *message.mutable_failed();
  *failed.mutable_attempt() = attempt;
  *failed.mutable_status() = ToProto(WithoutUnreachablePeer(status));
  if (const std::optional<int> peer = UnreachablePeer(status)) failed.set_unreachable_peer(*peer);
  *failed.mutable_activity() = std::move(activity);
  failed.set_consequence(consequence);
  return message;
}

}  // namespace

absl::StatusOr<std::unique_ptr<Engine>> Engine::Create(EngineOptions options, Artifacts& artifacts, MessageSink& sink) {
  GPIPE_ASSIGN_OR_RETURN(FileCache cache,
                         FileCache::Create(options.work_dir / "cache", options.cache_bytes, artifacts));
  GPIPE_ASSIGN_OR_RETURN(RangeCache ranges,
                         RangeCache::Create(options.work_dir / "ranges", options.cache_bytes, artifacts));
  return std::unique_ptr<Engine>(new Engine(std::move(options), std::move(cache), std::move(ranges), artifacts, sink));
}

Engine::Engine(EngineOptions options, FileCache cache, RangeCache ranges, Artifacts& artifacts, MessageSink& sink)
    : options_(std::move(options)),
      artifacts_(artifacts),
      sink_(sink),
      activity_(sink),
      cache_(std::move(cache)),
      ranges_(std::move(ranges)),
      failpoint_(options_.failpoint),
      thread_([this] { Loop(); }) {}

Engine::~Engine() {
  AbortAndWait(absl::CancelledError("the worker is shutting down"));
  {
    absl::MutexLock lock(&mutex_);
    closing_ = true;
  }
  thread_.join();
}

AttemptState Engine::state() const {
  absl::MutexLock lock(&mutex_);
  return state_;
}

void Engine::Prepare(v1::Assignment assignment) {
  const v1::AttemptId id = assignment.attempt();
  Begin(id, AttemptEvent::kPrepare, std::move(assignment));
}

void Engine::MeasureLinks(v1::MeasureLinks request) {
  const v1::AttemptId id = request.attempt();
  Begin(id, AttemptEvent::kMeasure, std::move(request));
}

void Engine::Begin(const v1::AttemptId& id, AttemptEvent event, Task task) {
  absl::Status refused;
  {
    absl::MutexLock lock(&mutex_);
    absl::StatusOr<AttemptState> next = Transition(state_, event);
    if (next.ok()) {
      state_ = *next;
      control_ = std::make_unique<AttemptControl>(id, sink_);
      pending_ = std::move(task);
      return;
    }
    refused = next.status();
  }
  spdlog::warn("refused {}: {}", AttemptName(id), refused.ToString());
  sink_.Send(FailedMessage(id, refused, activity(), /*consequence=*/false));
}

void Engine::Grant(const v1::Grant& grant) {
  absl::MutexLock lock(&mutex_);
  AttemptControl* control = Find(grant.attempt());
  if (control == nullptr) return;
  control->rounds().Tell(grant.next());
  control->gate().Advance({grant.round(), grant.cycle()});
}

void Engine::OnRendezvousValue(const v1::RendezvousValue& value) {
  absl::MutexLock lock(&mutex_);
  if (AttemptControl* control = Find(value.attempt())) control->rendezvous().OnValue(value.key(), value.value());
}

void Engine::Abort(const v1::AttemptId& attempt, const absl::Status& reason) {
  absl::MutexLock lock(&mutex_);
  if (Find(attempt) == nullptr) return SendReleased(attempt);
  AbortLocked(reason, /*announced=*/true);
}

void Engine::Release(const v1::AttemptId& attempt) {
  absl::MutexLock lock(&mutex_);
  AttemptControl* control = Find(attempt);
  if (control == nullptr) return SendReleased(attempt);
  if (state_ == AttemptState::kFinished) return control->Release();
  AbortLocked(absl::CancelledError("released before it had finished"), /*announced=*/true);
}

void Engine::AbortAndWait(const absl::Status& reason) {
  absl::MutexLock lock(&mutex_);
  if (control_ != nullptr) AbortLocked(reason, /*announced=*/false);
  mutex_.Await(absl::Condition(this, &Engine::Idle));
}

void Engine::AbortLocked(const absl::Status& reason, bool announced) {
  absl::StatusOr<AttemptState> next = Transition(state_, AttemptEvent::kAbort);
  if (next.ok()) state_ = *next;
  control_->Abort(reason, announced);
}

AttemptControl* Engine::Find(const v1::AttemptId& id) {
  return control_ != nullptr && SameAttempt(control_->id(), id) ? control_.get() : nullptr;
}

void Engine::SendReleased(const v1::AttemptId& attempt) {
  v1::WorkerMessage message;
  *message.mutable_released()->mutable_attempt() = attempt;
  sink_.Send(std::move(message));
}

void Engine::Loop() {
  SetThreadName("engine");
  const absl::Status ready = SetUpTorchThread(options_.device, options_.threads);
  while (true) {
    std::optional<Task> task;
    AttemptControl* control = nullptr;
    {
      absl::MutexLock lock(&mutex_);
      mutex_.Await(absl::Condition(this, &Engine::HasWork));
      if (closing_) return;
      task = std::exchange(pending_, std::nullopt);
      control = control_.get();
    }
    activity_.Begin(control->id());
    ready.ok() ? Do(*std::move(task), *control) : Fail(ready, *control);
    LetGo(*control);
  }
}

void Engine::Do(Task task, AttemptControl& control) {
  if (options_.device_lock == nullptr) return std::visit([&](auto& begun) { Run(std::move(begun), control); }, task);
  if (!options_.device_lock->Take(control.stop_token())) return;  // It was aborted.
  const absl::Cleanup release = [this] { options_.device_lock->Release(); };
  std::visit([&](auto& begun) { Run(std::move(begun), control); }, task);
}

void Engine::Run(v1::Assignment assignment, AttemptControl& control) {
  spdlog::info("{}: preparing", AttemptName(control.id()));
  absl::StatusOr<ScratchFolder> folder = ScratchFolder::Create(options_.work_dir / "attempt");
  if (!folder.ok()) return Fail(folder.status(), control);
  const Attempt::Environment environment = {options_.device,
                                            options_.data_address,
                                            folder->path(),
                                            options_.trace_dir,
                                            options_.connect,
                                            cache_,
                                            artifacts_,
                                            ranges_,
                                            sink_,
                                            options_.clock,
                                            SharedFiles(options_.shared_root),
                                            options_.max_shard_bytes};
  ranges_.Attend(control.stop_token(), [this](int64_t bytes) { activity_.AddBytes(bytes); });
  const auto leave = absl::MakeCleanup([this] { ranges_.Attend({}, nullptr); });
  Attempt attempt(environment, std::move(assignment), {activity_, failpoint_, control});
  const absl::Status status = CatchTorch([&] {
    if (options_.device.is_cuda()) ForgetCudaError("what was done before this attempt");
    ResetDevicePeak(options_.device);
    return RunPhases(attempt, control.id());
  });
  if (status.ok()) {
    control.WaitForEnd();
    return;
  }
  Fail(status, control);  // Before the peers notice, so that the cause is told first.
  attempt.Abandon(status);
}

void Engine::Run(const v1::MeasureLinks& request, AttemptControl& control) {
  spdlog::info("{}: measuring links", AttemptName(control.id()));
  CommOptions options;
  options.rank = request.worker_index();
  options.size = request.workers();
  options.device = options_.device;
  options.data_address = options_.data_address;
  LinkProbe probe(std::move(options), options_.connect, {activity_, failpoint_, control});
  const absl::Status status = CatchTorch([&] { return ReportLinks(probe, control.id()); });
  if (status.ok()) {
    control.WaitForEnd();
    return;
  }
  Fail(status, control);  // The cause is told first.
  probe.Abandon(status);
}

absl::Status Engine::ReportLinks(LinkProbe& probe, const v1::AttemptId& id) {
  GPIPE_ASSIGN_OR_RETURN(const std::optional<v1::LinkSpeed> next, probe.Measure());
  GPIPE_RETURN_IF_ERROR(Advance(AttemptEvent::kMeasured));
  v1::WorkerMessage message;
  v1::LinksMeasured& measured = *message.mutable_links_measured();
  *measured.mutable_attempt() = id;
  if (next) *measured.mutable_next() = *next;
  sink_.Send(std::move(message));
  return absl::OkStatus();
}

absl::Status Engine::RunPhases(Attempt& attempt, const v1::AttemptId& id) {
  GPIPE_RETURN_IF_ERROR(OwnFailure(attempt.Prepare()));
  GPIPE_RETURN_IF_ERROR(Advance(AttemptEvent::kBuilt));
  GPIPE_RETURN_IF_ERROR(attempt.Join());
  GPIPE_RETURN_IF_ERROR(Advance(AttemptEvent::kJoined));
  v1::WorkerMessage prepared;
  *prepared.mutable_prepared()->mutable_attempt() = id;
  sink_.Send(std::move(prepared));

  GPIPE_RETURN_IF_ERROR(attempt.Run());
  GPIPE_RETURN_IF_ERROR(Advance(AttemptEvent::kRoundsDone));
  v1::WorkerMessage finished;
  absl::StatusOr<v1::Finished> results = attempt.Finish();
  GPIPE_RETURN_IF_ERROR(OwnFailure(results.status()));
  *finished.mutable_finished() = *std::move(results);
  GPIPE_RETURN_IF_ERROR(Advance(AttemptEvent::kUploaded));
  sink_.Send(std::move(finished));
  return absl::OkStatus();
}

absl::Status Engine::Advance(AttemptEvent event) {
  absl::MutexLock lock(&mutex_);
  if (state_ == AttemptState::kAborting) return control_->status();
  GPIPE_ASSIGN_OR_RETURN(state_, Transition(state_, event));
  return absl::OkStatus();
}

void Engine::Fail(const absl::Status& status, const AttemptControl& control) {
  {
    absl::MutexLock lock(&mutex_);
    absl::StatusOr<AttemptState> next = Transition(state_, AttemptEvent::kFail);
    if (!next.ok()) return;  // Aborted, and the orchestrator knows why.
    state_ = *next;
  }
  const bool consequence = absl::IsUnavailable(status);
  spdlog::warn("{}: {}{}", AttemptName(control.id()), consequence ? "(consequence) " : "", StdView(status.message()));
  sink_.Send(FailedMessage(control.id(), status, activity(), consequence));
}

void Engine::LetGo(AttemptControl& control) {
  cache_.ReleaseAll();
  // Fails when the CUDA context is broken, as the next attempt will, and say so.
  const absl::Status released = ReleaseDeviceMemory(options_.device);
  if (!released.ok()) spdlog::warn("{}: {}", AttemptName(control.id()), released.ToString());
  const bool announced = control.WaitForEnd();
  activity_.Idle();
  spdlog::info("{}: let go", AttemptName(control.id()));
  const v1::AttemptId id = control.id();
  absl::MutexLock lock(&mutex_);
  const bool finished = state_ == AttemptState::kFinished;
  absl::StatusOr<AttemptState> next = Transition(state_, finished ? AttemptEvent::kRelease : AttemptEvent::kAborted);
  if (next.ok()) state_ = *next;
  control_.reset();
  if (announced) SendReleased(id);
}

}  // namespace gpipe::worker
