#ifndef GPIPE_WORKER_COMM_FAULT_INJECTING_COMMUNICATOR_H_
#define GPIPE_WORKER_COMM_FAULT_INJECTING_COMMUNICATOR_H_

#include <memory>
#include <optional>

#include "absl/base/thread_annotations.h"
#include "absl/status/status.h"
#include "absl/synchronization/mutex.h"
#include "absl/time/time.h"
#include "worker/comm/communicator.h"

namespace gpipe::worker {

// What goes wrong, and when. Operations are Send, Receive, AllReduceSum and Broadcast, counted from 0.
struct Fault {
  enum class Kind {
    kFail,   // The operation returns `status` and never reaches the wrapped communicator.
    kHang,   // The operation blocks until Abort.
    kDelay,  // The operation starts `delay` later, or not at all when aborted before.
  };
  Kind kind = Kind::kFail;
  int operation = 0;
  absl::Status status = absl::UnavailableError("injected fault");
  absl::Duration delay = absl::ZeroDuration();
};

// For tests of what uses a communicator: behaves like `inner` but for one fault.
class FaultInjectingCommunicator final : public Communicator {
 public:
  FaultInjectingCommunicator(std::unique_ptr<Communicator> inner, std::optional<Fault> fault);

  int rank() const override { return inner_->rank(); }
  int size() const override { return inner_->size(); }
  absl::StatusOr<std::unique_ptr<Work>> Send(int channel, at::TensorList tensors) override;
  absl::StatusOr<std::unique_ptr<Work>> Receive(int channel, at::TensorList tensors) override;
  absl::Status AllReduceSum(const at::Tensor& tensor) override;
  absl::Status Broadcast(const at::Tensor& tensor, int root) override;
  void Abort(const absl::Status& reason) override;
  absl::Status status() override { return inner_->status(); }

 private:
  // Counts an operation and lets the fault happen if it is the one. OK: go on with the operation.
  absl::Status Enter();

  const std::unique_ptr<Communicator> inner_;
  const std::optional<Fault> fault_;
  int next_operation_ = 0;  // Of the engine's thread alone.
  absl::Mutex mutex_;
  absl::Status aborted_ ABSL_GUARDED_BY(mutex_);
};

}  // namespace gpipe::worker

#endif  // GPIPE_WORKER_COMM_FAULT_INJECTING_COMMUNICATOR_H_
