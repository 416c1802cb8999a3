#ifndef GPIPE_WORKER_ENGINE_ATTEMPT_CONTROL_H_
#define GPIPE_WORKER_ENGINE_ATTEMPT_CONTROL_H_

#include <stop_token>

#include "absl/base/thread_annotations.h"
#include "absl/synchronization/mutex.h"
#include "gpipe/v1/worker_session.pb.h"
#include "worker/comm/communicator.h"
#include "worker/engine/grant_gate.h"
#include "worker/engine/message_rendezvous.h"
#include "worker/engine/round_feed.h"

namespace gpipe::worker {

// What other threads may do to the attempt that the engine's thread is running: grant, hand over rendezvous values,
// abort, release. Any thread may call any method, unless it says otherwise.
class AttemptControl {
 public:
  AttemptControl(const v1::AttemptId& id, MessageSink& sink) : id_(id), rendezvous_(id, sink) {}

  const v1::AttemptId& id() const { return id_; }
  GrantGate& gate() { return gate_; }
  RoundFeed& rounds() { return rounds_; }
  MessageRendezvous& rendezvous() { return rendezvous_; }

  // Wakes the engine wherever it waits: gate, rounds, rendezvous, communicator, a transfer, failpoint. The first reason
  // stays. `announced`: the orchestrator asked for it and waits for Released.
  void Abort(const absl::Status& reason, bool announced);

  // The orchestrator lets go of the attempt.
  void Release();

  // Stopped when the attempt is aborted: for what waits for files.
  std::stop_token stop_token() const { return stop_.get_token(); }

  // OK until aborted.
  absl::Status status() const;

  // Blocks until aborted; returns why.
  absl::Status WaitForAbort();

  // Blocks until released or aborted, other than by this worker's own failure. True if the orchestrator waits for
  // Released.
  bool WaitForEnd();

  // The engine's thread: makes Abort reach this communicator, until it is called with null before the communicator
  // goes.
  void SetCommunicator(Communicator* communicator);

 private:
  bool aborted() const ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_) { return !aborted_.ok(); }
  bool ended() const ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_) { return released_ || aborted(); }

  const v1::AttemptId id_;
  GrantGate gate_;
  RoundFeed rounds_;
  MessageRendezvous rendezvous_;
  std::stop_source stop_;

  // Held before the locks of gate_, rounds_, rendezvous_, the communicator and what hears of stop_.
  mutable absl::Mutex mutex_;
  Communicator* communicator_ ABSL_GUARDED_BY(mutex_) = nullptr;
  absl::Status aborted_ ABSL_GUARDED_BY(mutex_);
  bool announced_ ABSL_GUARDED_BY(mutex_) = false;
  bool released_ ABSL_GUARDED_BY(mutex_) = false;
};

}  // namespace gpipe::worker

#endif  // GPIPE_WORKER_ENGINE_ATTEMPT_CONTROL_H_
