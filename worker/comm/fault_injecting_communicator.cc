#include "worker/comm/fault_injecting_communicator.h"

#include <utility>

#include "common/status_macros.h"

namespace gpipe::worker {

FaultInjectingCommunicator::FaultInjectingCommunicator(std::unique_ptr<Communicator> inner, std::optional<Fault> fault)
    : inner_(std::move(inner)), fault_(std::move(fault)) {}

absl::Status FaultInjectingCommunicator::Enter() {
  const int operation = next_operation_++;
  absl::MutexLock lock(&mutex_);
  GPIPE_RETURN_IF_ERROR(aborted_);
  if (!fault_ || fault_->operation != operation) return absl::OkStatus();
  if (fault_->kind == Fault::Kind::kFail) return fault_->status;
  const absl::Duration wait = fault_->kind == Fault::Kind::kHang ? absl::InfiniteDuration() : fault_->delay;
  const auto is_aborted = [this]() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_) { return !aborted_.ok(); };
  mutex_.AwaitWithTimeout(absl::Condition(&is_aborted), wait);
  return aborted_;
}

absl::StatusOr<std::unique_ptr<Work>> FaultInjectingCommunicator::Send(int channel, at::TensorList tensors) {
  GPIPE_RETURN_IF_ERROR(Enter());
  return inner_->Send(channel, tensors);
}

absl::StatusOr<std::unique_ptr<Work>> FaultInjectingCommunicator::Receive(int channel, at::TensorList tensors) {
  GPIPE_RETURN_IF_ERROR(Enter());
  return inner_->Receive(channel, tensors);
}

absl::Status FaultInjectingCommunicator::AllReduceSum(const at::Tensor& tensor) {
  GPIPE_RETURN_IF_ERROR(Enter());
  return inner_->AllReduceSum(tensor);
}

absl::Status FaultInjectingCommunicator::Broadcast(const at::Tensor& tensor, int root) {
  GPIPE_RETURN_IF_ERROR(Enter());
  return inner_->Broadcast(tensor, root);
}

void FaultInjectingCommunicator::Abort(const absl::Status& reason) {
  {
    absl::MutexLock lock(&mutex_);
    if (aborted_.ok()) aborted_ = reason.ok() ? absl::CancelledError("aborted") : reason;
  }
  inner_->Abort(reason);
}

}  // namespace gpipe::worker
