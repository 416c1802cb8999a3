#ifndef GPIPE_WORKER_COMM_GLOO_COMMUNICATOR_H_
#define GPIPE_WORKER_COMM_GLOO_COMMUNICATOR_H_

#include <memory>
#include <set>
#include <thread>
#include <torch/csrc/distributed/c10d/ProcessGroupGloo.hpp>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/status/statusor.h"
#include "absl/synchronization/mutex.h"
#include "absl/time/time.h"
#include "common/bounded_queue.h"
#include "worker/comm/communicator.h"
#include "worker/comm/connect.h"
#include "worker/comm/gloo_monitor.h"
#include "worker/comm/gloo_work.h"
#include "worker/comm/star.h"

namespace gpipe::worker {

// CPU tensors over TCP. A channel's index is its tag; Gloo keeps the transfers of one tag between two workers in order.
// A message leaves the sender when the receiver has asked for it, so receives are best posted early.
//
// Threads: Gloo's event loop, which does all reading; the starter, which begins the transfers in their order, because
// beginning one is one or two writes to a socket, and the engine's thread computes meanwhile; and the monitor.
class GlooCommunicator final : public Communicator, private StarLinks {
 public:
  static absl::StatusOr<std::unique_ptr<Communicator>> Connect(const CommOptions& options, Rendezvous& rendezvous,
                                                               absl::Time deadline);
  ~GlooCommunicator() override;

  int rank() const override { return rank_; }
  int size() const override { return size_; }
  absl::StatusOr<std::unique_ptr<Work>> Send(int channel, at::TensorList tensors) override;
  absl::StatusOr<std::unique_ptr<Work>> Receive(int channel, at::TensorList tensors) override;
  absl::Status AllReduceSum(const at::Tensor& tensor) override;
  absl::Status Broadcast(const at::Tensor& tensor, int root) override;
  void Abort(const absl::Status& reason) override;
  absl::Status status() override;

 private:
  friend class GlooWork;

  GlooCommunicator(const CommOptions& options, c10::intrusive_ptr<c10d::ProcessGroupGloo> group);

  absl::StatusOr<std::unique_ptr<Work>> SendTo(int peer, const at::Tensor& tensor) override;
  absl::StatusOr<std::unique_ptr<Work>> ReceiveFrom(int peer, const at::Tensor& tensor) override;
  absl::StatusOr<std::unique_ptr<Work>> Start(GlooTransfer transfer);
  void BeginTransfers();
  // The monitor or a transfer found the connection broken.
  void OnPeerGone(int peer);

  // Why a transfer with `peer` cannot go on: the abort's reason, or that the peer is gone; OK if it can.
  absl::Status Broken(int peer);
  bool aborted();
  // Between these two a work is interrupted when its transfer cannot go on.
  void Register(GlooWork* work);
  void Unregister(GlooWork* work);

  const int rank_;
  const int size_;
  const std::vector<Channel> channels_;
  const c10::intrusive_ptr<c10d::ProcessGroupGloo> group_;

  BoundedQueue<GlooWork*> to_begin_;

  absl::Mutex mutex_;
  absl::Status aborted_ ABSL_GUARDED_BY(mutex_);
  std::vector<bool> gone_ ABSL_GUARDED_BY(mutex_);
  std::set<GlooWork*> under_way_ ABSL_GUARDED_BY(mutex_);

  // Last, because their threads use the rest.
  GlooMonitor monitor_;
  std::thread starter_;
};

}  // namespace gpipe::worker

#endif  // GPIPE_WORKER_COMM_GLOO_COMMUNICATOR_H_
