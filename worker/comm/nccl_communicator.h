#ifndef GPIPE_WORKER_COMM_NCCL_COMMUNICATOR_H_
#define GPIPE_WORKER_COMM_NCCL_COMMUNICATOR_H_

#include <memory>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "worker/comm/abort_status.h"
#include "worker/comm/communicator.h"
#include "worker/comm/connect.h"
#include "worker/comm/nccl_comm.h"
#include "worker/comm/nccl_watchdog.h"
#include "worker/comm/star.h"

namespace gpipe::worker {

// CUDA tensors over NCCL. Every channel has an NCCL communicator of its two workers and a stream of its own, so that
// directions and boundaries never wait for each other; the collectives have one over all workers. A transfer is one
// kernel on both devices, however many tensors it has. Transfers are ordered with
// the caller's current stream by events; the host does not wait. A transfer's memory is safe when its Work was waited
// for, or destroyed, before the tensor is freed, on the stream the tensor belongs to.
//
// When a peer dies NCCL notices only what its transport notices (a socket does, shared memory does not); the
// orchestrator's abort covers the rest. Threads: the watchdog, and NCCL's own.
class NcclCommunicator final : public Communicator, private StarLinks {
 public:
  // `rendezvous_key` is one that has been put: it is looked up to notice an abort of the rendezvous.
  static absl::StatusOr<std::unique_ptr<Communicator>> Connect(const CommOptions& options, Rendezvous& rendezvous,
                                                               absl::Time deadline, const std::string& rendezvous_key);
  ~NcclCommunicator() override;

  int rank() const override { return rank_; }
  int size() const override { return size_; }
  absl::StatusOr<std::unique_ptr<Work>> Send(int channel, at::TensorList tensors) override;
  absl::StatusOr<std::unique_ptr<Work>> Receive(int channel, at::TensorList tensors) override;
  absl::Status AllReduceSum(const at::Tensor& tensor) override;
  absl::Status Broadcast(const at::Tensor& tensor, int root) override;
  void Abort(const absl::Status& reason) override;
  absl::Status status() override;

 private:
  enum class Operation { kSend, kReceive, kBroadcast };

  NcclCommunicator(const CommOptions& options, KeepWaiting keep_waiting);

  // Makes all communicators this worker is part of, in an order that is the same on all workers.
  absl::Status MakeComms(Rendezvous& rendezvous, absl::Time deadline);
  // Uses each once, because NCCL makes a connection only then, and that waits for the peer.
  absl::Status WarmUp();
  absl::Status QuickenChannels();
  void StartWatching();
  std::vector<NcclComm*> Comms() const;

  absl::StatusOr<std::unique_ptr<Work>> SendTo(int peer, const at::Tensor& tensor) override;
  absl::StatusOr<std::unique_ptr<Work>> ReceiveFrom(int peer, const at::Tensor& tensor) override;
  absl::StatusOr<std::unique_ptr<Work>> Start(NcclComm& comm, Operation operation, int peer, at::TensorList tensors);
  absl::Status BroadcastOnStream(const at::Tensor& tensor, int root);
  absl::Status CheckRunning() const { return aborted_.Get(); }
  void Close();

  const int rank_;
  const int size_;
  const c10::Device device_;
  const std::vector<Channel> channels_;
  KeepWaiting keep_waiting_;  // While connecting until the deadline, later until an abort.
  AbortStatus aborted_;
  std::unique_ptr<NcclComm> all_;
  std::vector<std::unique_ptr<NcclComm>> channel_comms_;  // Null where this worker is at neither end.
  std::unique_ptr<NcclWatchdog> watchdog_;                // Once connected.
};

}  // namespace gpipe::worker

#endif  // GPIPE_WORKER_COMM_NCCL_COMMUNICATOR_H_
