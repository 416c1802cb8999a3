#ifndef GPIPE_WORKER_COMM_SOLO_COMMUNICATOR_H_
#define GPIPE_WORKER_COMM_SOLO_COMMUNICATOR_H_

#include <memory>

#include "worker/comm/abort_status.h"
#include "worker/comm/communicator.h"

namespace gpipe::worker {

// A worker alone: collectives leave the tensor as it is, and there is nobody to send to (INVALID_ARGUMENT).
class SoloCommunicator final : public Communicator {
 public:
  int rank() const override { return 0; }
  int size() const override { return 1; }
  absl::StatusOr<std::unique_ptr<Work>> Send(int channel, at::TensorList tensors) override;
  absl::StatusOr<std::unique_ptr<Work>> Receive(int channel, at::TensorList tensors) override;
  absl::Status AllReduceSum(const at::Tensor& tensor) override;
  absl::Status Broadcast(const at::Tensor& tensor, int root) override;
  void Abort(const absl::Status& reason) override;
  absl::Status status() override { return aborted_.Get(); }

 private:
  AbortStatus aborted_;
};

}  // namespace gpipe::worker

#endif  // GPIPE_WORKER_COMM_SOLO_COMMUNICATOR_H_
