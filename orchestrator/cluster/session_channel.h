#ifndef GPIPE_ORCHESTRATOR_CLUSTER_SESSION_CHANNEL_H_
#define GPIPE_ORCHESTRATOR_CLUSTER_SESSION_CHANNEL_H_

#include <deque>

#include "absl/base/thread_annotations.h"
#include "absl/status/status.h"
#include "absl/synchronization/mutex.h"
#include "gpipe/v1/worker_session.pb.h"
#include "orchestrator/access/worker_files.h"
#include "orchestrator/cluster/worker_channel.h"

namespace gpipe::orchestrator {

// What a channel asks of its gRPC call. Any of these may call the channel back before it returns.
class SessionCall {
 public:
  virtual ~SessionCall() = default;
  virtual void Read(v1::WorkerMessage* message) = 0;
  // The channel's OnWriteDone follows.
  virtual void Write(const v1::OrchestratorMessage* message) = 0;
  // Reads and writes under way end soon.
  virtual void Cancel() = 0;
  // The last thing that is asked; the call may be gone before this returns.
  virtual void Finish(const absl::Status& status) = 0;
};

// Between the loop, which sends and closes, and gRPC's threads, which report what became of it. Lives as long as either
// needs it; gRPC's reactor ends by itself some time after Finish. Any thread.
//
// The call is asked without the lock, because it may call back. So that it is still there then, Finish waits: for the
// write under way, and for whoever is asking just now (asking_).
class SessionChannel final : public WorkerChannel {
 public:
  // Messages on their way to one worker; much more than a healthy one ever has.
  static constexpr size_t kMaxOutgoing = 4096;

  // `call` stays until it is asked to finish; `files` outlives the channel.
  SessionChannel(SessionCall* call, WorkerFiles* files, WorkerFiles::SessionId id)
      : call_(call), files_(files), id_(id) {}

  void Send(const v1::OrchestratorMessage& message) override;
  void Close(const absl::Status& status) override;
  void Cancel(const absl::Status& status) override;

  // The next message may come. Called by the loop when it has worked off the last one.
  void Read(v1::WorkerMessage* message);
  void OnWriteDone(bool ok);

 private:
  // Begins what can be begun: the next write, the end.
  void Advance();

  SessionCall* const call_;  // Valid until finished_.
  WorkerFiles* const files_;
  const WorkerFiles::SessionId id_;
  absl::Mutex mutex_;
  std::deque<v1::OrchestratorMessage> outgoing_ ABSL_GUARDED_BY(mutex_);  // The first one is being written, if any is.
  int asking_ ABSL_GUARDED_BY(mutex_) = 0;                                // Threads.
  bool writing_ ABSL_GUARDED_BY(mutex_) = false;
  bool closing_ ABSL_GUARDED_BY(mutex_) = false;
  bool finished_ ABSL_GUARDED_BY(mutex_) = false;
  absl::Status status_;  // Constant once closing_.
};

}  // namespace gpipe::orchestrator

#endif  // GPIPE_ORCHESTRATOR_CLUSTER_SESSION_CHANNEL_H_
