#ifndef GPIPE_WORKER_ENGINE_TRANSFER_QUEUE_H_
#define GPIPE_WORKER_ENGINE_TRANSFER_QUEUE_H_

#include <ATen/core/Tensor.h>
#include <c10/core/Device.h>

#include <cstdint>
#include <deque>
#include <memory>
#include <vector>

#include "absl/status/statusor.h"
#include "gpipe/v1/plan.pb.h"
#include "pipeline/action.h"
#include "worker/comm/communicator.h"
#include "worker/engine/activity_tracker.h"
#include "worker/engine/channels.h"
#include "worker/engine/round_plan.h"
#include "worker/model/tensor_layout.h"

namespace gpipe::worker {

// The transfers under way of one attempt: keeps their tensors with their Work until they are complete. Steps are those
// of the attempt's programs, SENDs and RECVs, and outlive the queue. Used by the engine's thread only.
class TransferQueue {
 public:
  // All but `device` must outlive the queue. `activity` is told of waits.
  TransferQueue(Communicator& communicator, const v1::Plan& plan, const ChannelMap& channels, c10::Device device,
                ActivityTracker& activity);

  // Whether receives may be posted before the actions that stand before them in the row. On CUDA a posted receive is a
  // kernel that runs until its message comes, and much makes a device wait for all its kernels: the first use of
  // another kernel, pinned memory, a growing allocator. Had the message to wait for an action that waits like that,
  // neither would ever go on. In the row's order a receive is waited for in any case before the next action, and
  // nothing is lost: the host is far ahead of the device. A send is such a kernel too, unless the message fits NCCL's
  // buffers; it can be caught like that only where the receiver first needs something that this worker does later:
  // a skip between two workers of which this one has other stages on its way.
  bool may_post_early() const { return device_.is_cpu(); }

  // Begins to receive the values of the step, a micro-batch of so many samples. `room` may have a tensor for each of
  // them into which it is received if it is as the value will be; others, and undefined ones, are made. Receives are
  // completed in the order in which they were posted.
  absl::Status PostReceive(const Step& step, int64_t samples, at::TensorList room = {});

  // The values of the oldest posted receive, which must be that of the step, in the order of its edges. They lie in
  // memory as the edges' values do.
  absl::StatusOr<std::vector<at::Tensor>> CompleteReceive(const Step& step);

  // Begins to send the values of the step's edges, a micro-batch of so many samples. When MaxUnreceived
  // (pipeline/transfers.h) messages of the channel are under way, first waits for the oldest: on CPU the engine does
  // until its receive is posted, on CUDA the current stream does until the receiver's has come to its RECV, and the
  // host goes on. INVALID_ARGUMENT: a value has not the shape and type of the plan, for which the receiver has made
  // room.
  absl::Status Send(const Step& step, int64_t samples, std::vector<at::Tensor> values);

  // Waits until all sends are complete.
  absl::Status FinishSends();

  // By worker, what was exchanged with it since the last call: begun sends, completed receives, and, on CPU, how long
  // the engine waited for either.
  struct Traffic {
    int64_t sent_bytes = 0;
    int64_t received_bytes = 0;
    int64_t wait_nanos = 0;
  };
  std::vector<Traffic> TakeTraffic();

  // The worker at the other end of a transfer.
  int PeerOf(const pipeline::Action& action) const;

 private:
  // How the values of an edge lie in memory.
  struct Layout {
    c10::ScalarType type = c10::ScalarType::Undefined;
    DimensionOrder order;
  };
  struct Transfer {
    const Step* step = nullptr;
    // Their dimensions in the edges' order. Declared before `work`, whose end waits for the transfer.
    std::vector<at::Tensor> tensors;
    std::unique_ptr<Work> work;
  };

  absl::Status FinishOldest(std::deque<Transfer>& sends);
  // The transfer's end, described.
  absl::Status Await(const Transfer& transfer);
  // `room` if the value can be received there, else a new tensor.
  at::Tensor RoomFor(int edge, int64_t samples, const at::Tensor& room) const;
  absl::Status CheckFits(int edge, int64_t samples, const at::Tensor& tensor) const;
  // Says which transfer failed, between which stages.
  absl::Status Describe(const absl::Status& status, const Step& step) const;

  Communicator& communicator_;
  const v1::Plan& plan_;
  const ChannelMap& channels_;
  const c10::Device device_;
  ActivityTracker& activity_;
  std::vector<Layout> layouts_;  // By edge.
  std::deque<Transfer> receives_;
  std::vector<std::deque<Transfer>> sends_;  // By channel.
  std::vector<Traffic> traffic_;             // By worker.
};

}  // namespace gpipe::worker

#endif  // GPIPE_WORKER_ENGINE_TRANSFER_QUEUE_H_
