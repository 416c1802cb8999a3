#include "worker/engine/transfer_queue.h"

#include <ATen/ATen.h>

#include <algorithm>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "common/plan/evaluation.h"
#include "common/plan/shape.h"
#include "common/status_macros.h"
#include "pipeline/transfers.h"
#include "worker/data/tensor_file.h"
#include "worker/engine/clock_offset.h"

namespace gpipe::worker {
namespace {

size_t WorkersOf(const v1::Plan& plan) {
  const auto& workers = plan.stage_worker();
  return workers.empty() ? 0 : static_cast<size_t>(*std::max_element(workers.begin(), workers.end())) + 1;
}

}  // namespace

using pipeline::DirectionOf;

TransferQueue::TransferQueue(Communicator& communicator, const v1::Plan& plan, const ChannelMap& channels,
                             c10::Device device, ActivityTracker& activity)
    : communicator_(communicator),
      plan_(plan),
      channels_(channels),
      device_(device),
      activity_(activity),
      sends_(channels.channels.size()),
      traffic_(WorkersOf(plan)) {}

absl::Status TransferQueue::PostReceive(const pipeline::Action& action, int64_t samples) {
  at::Tensor tensor = Ordered(Allocate(action.edge, samples), OrderOfEdge(action.edge));
  auto work = communicator_.Receive(channels_.Find(action.edge, DirectionOf(action.kind)), tensor);
  if (!work.ok()) return Describe(work.status(), action);
  receives_.push_back({action, std::move(tensor), *std::move(work)});
  return absl::OkStatus();
}

absl::StatusOr<at::Tensor> TransferQueue::CompleteReceive(const pipeline::Action& action) {
  if (receives_.empty() || !(receives_.front().action == action)) {
    return absl::InternalError(absl::StrCat(pipeline::ToString(action), " was not posted in the row's order"));
  }
  Transfer transfer = std::move(receives_.front());
  receives_.pop_front();
  GPIPE_RETURN_IF_ERROR(Await(transfer));
  traffic_[PeerOf(action)].received_bytes += static_cast<int64_t>(transfer.tensor.nbytes());
  return Unordered(transfer.tensor, OrderOfEdge(action.edge));
}

absl::Status TransferQueue::Send(const pipeline::Action& action, int64_t samples, at::Tensor tensor) {
  if (absl::Status fits = CheckFits(action.edge, samples, tensor); !fits.ok()) return Describe(fits, action);
  const int channel = channels_.Find(action.edge, DirectionOf(action.kind));
  if (channel < 0) return Describe(absl::InvalidArgumentError("the plan has no channel for it"), action);
  std::deque<Transfer>& sends = sends_[channel];
  const v1::Edge& edge = EdgeAt(plan_, action.edge);
  const auto places = static_cast<size_t>(pipeline::MaxUnreceived(edge.from_stage(), edge.to_stage()));
  if (sends.size() >= places) GPIPE_RETURN_IF_ERROR(FinishOldest(sends));
  tensor = Ordered(InOrder(tensor, OrderOfEdge(action.edge)), OrderOfEdge(action.edge));
  auto work = communicator_.Send(channel, tensor);
  if (!work.ok()) return Describe(work.status(), action);
  traffic_[PeerOf(action)].sent_bytes += static_cast<int64_t>(tensor.nbytes());
  sends.push_back({action, std::move(tensor), *std::move(work)});
  return absl::OkStatus();
}

absl::Status TransferQueue::FinishSends() {
  for (std::deque<Transfer>& sends : sends_) {
    while (!sends.empty()) GPIPE_RETURN_IF_ERROR(FinishOldest(sends));
  }
  return absl::OkStatus();
}

absl::Status TransferQueue::FinishOldest(std::deque<Transfer>& sends) {
  Transfer transfer = std::move(sends.front());
  sends.pop_front();
  return Await(transfer);
}

absl::Status TransferQueue::Await(const Transfer& transfer) {
  const int peer = PeerOf(transfer.action);
  const ActivityTracker::Wait waiting(activity_, peer);
  const int64_t begun = SteadyNanos();
  absl::Status ended = transfer.work->Wait();
  if (device_.is_cpu()) traffic_[peer].wait_nanos += SteadyNanos() - begun;
  return Describe(ended, transfer.action);
}

std::vector<TransferQueue::Traffic> TransferQueue::TakeTraffic() {
  return std::exchange(traffic_, std::vector<Traffic>(traffic_.size()));
}

int TransferQueue::PeerOf(const pipeline::Action& action) const {
  const v1::Edge& edge = EdgeAt(plan_, action.edge);
  const bool forward = DirectionOf(action.kind) == Direction::kForward;
  return plan_.stage_worker(pipeline::IsReceive(action.kind) == forward ? edge.from_stage() : edge.to_stage());
}

at::Tensor TransferQueue::Allocate(int edge, int64_t samples) const {
  const v1::Edge& description = EdgeAt(plan_, edge);
  return EmptyInOrder(SizesFor(description.shape(), samples), OrderOfEdge(edge),
                      at::TensorOptions().dtype(ToScalarType(description.dtype())).device(device_));
}

DimensionOrder TransferQueue::OrderOfEdge(int edge) const { return FromField(EdgeAt(plan_, edge).dimension_order()); }

absl::Status TransferQueue::CheckFits(int edge, int64_t samples, const at::Tensor& tensor) const {
  const v1::Edge& description = EdgeAt(plan_, edge);
  const std::vector<int64_t> sizes = SizesFor(description.shape(), samples);
  const c10::ScalarType type = ToScalarType(description.dtype());
  if (tensor.sizes() == at::IntArrayRef(sizes) && tensor.scalar_type() == type) return absl::OkStatus();
  return absl::InvalidArgumentError(absl::StrCat("is ", c10::toString(tensor.scalar_type()), " [",
                                                 absl::StrJoin(tensor.sizes(), ", "), "], where the plan says ",
                                                 c10::toString(type), " [", absl::StrJoin(sizes, ", "), "]"));
}

absl::Status TransferQueue::Describe(const absl::Status& status, const pipeline::Action& action) const {
  if (status.ok()) return status;
  const v1::Edge& edge = EdgeAt(plan_, action.edge);
  return absl::Status(
      status.code(), absl::StrCat(pipeline::ToString(action), " (", edge.value(), " between stages ", edge.from_stage(),
                                  " and ", edge.to_stage(), "): ", status.message()));
}

}  // namespace gpipe::worker
