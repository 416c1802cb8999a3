#ifndef GPIPE_WORKER_SESSION_SESSION_H_
#define GPIPE_WORKER_SESSION_SESSION_H_

#include <functional>
#include <memory>
#include <string>

#include "absl/base/thread_annotations.h"
#include "absl/status/status.h"
#include "absl/synchronization/mutex.h"
#include "absl/time/time.h"
#include "common/clock.h"
#include "common/steady_signal.h"
#include "gpipe/v1/worker_session.grpc.pb.h"
#include "worker/engine/attempt_host.h"
#include "worker/engine/clock_offset.h"
#include "worker/session/backoff.h"
#include "worker/session/inspector.h"
#include "worker/session/lease.h"
#include "worker/session/outbox.h"
#include "worker/session/surveyor.h"

namespace gpipe::worker {

struct SessionOptions {
  v1::Hello hello;
  // For the answer to Hello.
  absl::Duration welcome_patience = absl::Seconds(10);
  // How long the orchestrator may refuse this worker (its name is taken: perhaps by its own dead past) before it gives
  // up.
  absl::Duration refusal_patience = absl::Seconds(15);
  absl::Duration first_backoff = absl::Milliseconds(100);
  absl::Duration max_backoff = absl::Seconds(5);
  // What heartbeats say of the machine; called by the writer. Null: nothing.
  std::function<v1::DeviceUse()> device_use;
  // Learns from heartbeats; outlives the session. Null: nobody asks for the orchestrator's clock.
  ClockOffset* clock = nullptr;
};

// The worker's connection with the orchestrator: says Hello, hands messages to the engine, sends what the outbox holds
// and heartbeats, and comes back when the stream breaks. What ran in a session that broke is aborted before the next
// Hello. One thread calls Run and reads; each session has a writer of its own.
class Session {
 public:
  using Stub = v1::WorkerSessionService::StubInterface;

  // All arguments must outlive the session.
  Session(SessionOptions options, Stub& stub, AttemptHost& host, Inspector& inspector, Surveyor& surveyor,
          Outbox& outbox);

  // Returns OK after Stop or Leave; the orchestrator's refusal when it lasted for refusal_patience, and
  // INVALID_ARGUMENT at once.
  absl::Status Run();

  // Another thread: tells the orchestrator, waits for its leave, at most `patience`, and stops. The engine works on
  // meanwhile, as its job may have to be saved.
  void Leave(const std::string& reason, absl::Duration patience);

  // Another thread: ends Run.
  void Stop();

  // Any thread: whether the orchestrator has welcomed this worker, and is there.
  bool connected() const {
    absl::MutexLock lock(&mutex_);
    return welcomed_;
  }

 private:
  using Stream = grpc::ClientReaderWriterInterface<v1::WorkerMessage, v1::OrchestratorMessage>;

  // One session, from Hello to the end of the stream; why it ended.
  absl::Status RunOnce();
  absl::Status Converse(grpc::ClientContext& context, Stream& stream);
  absl::Status Read(Stream& stream);
  absl::Status Welcome(const v1::OrchestratorMessage& message);
  void Dispatch(v1::OrchestratorMessage& message);
  void Write(grpc::ClientContext& context, Stream& stream);
  bool WriteHeartbeat(Stream& stream);

  // Why the worker gives up, or OK to try again.
  absl::Status Consider(const absl::Status& ended);
  // False when Stop ended the wait.
  bool Sleep(absl::Duration length);
  bool LeaveSettled();
  void OnLeaveGranted();
  void OnAlive(const v1::Alive& alive);
  bool stopping();

  const SessionOptions options_;
  Stub& stub_;
  AttemptHost& host_;
  Inspector& inspector_;
  Surveyor& surveyor_;
  Outbox& outbox_;
  Lease lease_;

  // Run's thread only.
  Backoff backoff_;
  absl::Status last_end_;
  absl::Time refused_since_ = absl::InfiniteFuture();

  const SteadyClock clock_;
  SteadySignal stopped_, leave_changed_;
  mutable absl::Mutex mutex_;
  grpc::ClientContext* context_ ABSL_GUARDED_BY(mutex_) = nullptr;
  bool welcomed_ ABSL_GUARDED_BY(mutex_) = false;
  bool leave_granted_ ABSL_GUARDED_BY(mutex_) = false;
  bool stopping_ ABSL_GUARDED_BY(mutex_) = false;
};

}  // namespace gpipe::worker

#endif  // GPIPE_WORKER_SESSION_SESSION_H_
