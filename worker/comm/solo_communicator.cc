#include "worker/comm/solo_communicator.h"

#include "absl/strings/str_cat.h"
#include "common/status_macros.h"

namespace gpipe::worker {
namespace {

absl::Status NoPeer(int channel) {
  return absl::InvalidArgumentError(absl::StrCat("channel ", channel, " of a worker that has no peers"));
}

}  // namespace

absl::StatusOr<std::unique_ptr<Work>> SoloCommunicator::Send(int channel, at::TensorList tensors) {
  GPIPE_RETURN_IF_ERROR(aborted_.Get());
  return NoPeer(channel);
}

absl::StatusOr<std::unique_ptr<Work>> SoloCommunicator::Receive(int channel, at::TensorList tensors) {
  GPIPE_RETURN_IF_ERROR(aborted_.Get());
  return NoPeer(channel);
}

absl::Status SoloCommunicator::AllReduceSum(const at::Tensor& tensor) { return aborted_.Get(); }

absl::Status SoloCommunicator::Broadcast(const at::Tensor& tensor, int root) { return aborted_.Get(); }

void SoloCommunicator::Abort(const absl::Status& reason) { aborted_.Set(reason); }

}  // namespace gpipe::worker
