#ifndef GPIPE_WORKER_COMM_GLOO_WORK_H_
#define GPIPE_WORKER_COMM_GLOO_WORK_H_

#include <ATen/core/Tensor.h>

#include <chrono>
#include <optional>
#include <torch/csrc/distributed/c10d/ProcessGroupGloo.hpp>

#include "absl/base/thread_annotations.h"
#include "absl/status/status.h"
#include "absl/synchronization/mutex.h"
#include "worker/comm/communicator.h"

namespace gpipe::worker {

class GlooCommunicator;

// Which transfer: its direction, the peer's rank, Gloo's tag, and the tensor, which is kept alive.
struct GlooTransfer {
  bool sends = false;
  int peer = 0;
  int tag = 0;
  at::Tensor tensor;
};

// One c10d transfer. The engine's thread makes it, waits for it and destroys it; the communicator's starter thread
// begins it, once; any thread interrupts it.
class GlooWork final : public Work {
 public:
  GlooWork(GlooCommunicator* owner, GlooTransfer transfer);
  ~GlooWork() override;

  absl::Status Wait() override;

  int peer() const { return transfer_.peer; }

  // Hands the transfer to Gloo, which does not wait for the peer. Afterwards the work may be gone.
  void Begin(c10d::ProcessGroupGloo& group);

  // Makes the wait under way, or the next, return at once: the first time, because a second one would end the last look
  // at what has arrived. A work that has not begun finds out when it does.
  void Interrupt();

 private:
  void Hand(c10d::ProcessGroupGloo& group);
  absl::Status WaitUntilDone();
  // nullopt when interrupted.
  std::optional<absl::Status> WaitOnce(std::chrono::milliseconds timeout);
  // What it means that a call of Gloo threw: arguments are checked before, so it can only be the connection. The owner
  // learns of it, so that later transfers with the peer are refused at once.
  absl::Status Lost(const std::exception& error);

  GlooCommunicator* const owner_;
  const GlooTransfer transfer_;
  std::optional<absl::Status> result_;  // The waiting thread's.

  absl::Mutex mutex_;
  bool begun_ ABSL_GUARDED_BY(mutex_) = false;
  bool interrupted_ ABSL_GUARDED_BY(mutex_) = false;
  c10::intrusive_ptr<c10d::Work> work_ ABSL_GUARDED_BY(mutex_);  // Null until begun, or when that failed.
  absl::Status failure_ ABSL_GUARDED_BY(mutex_);                 // Of beginning.
};

}  // namespace gpipe::worker

#endif  // GPIPE_WORKER_COMM_GLOO_WORK_H_
