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
#include "worker/model/memory_meter.h"

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
      traffic_(WorkersOf(plan)) {
  for (int edge = 0; edge < CountEdges(plan); ++edge) {
    const v1::Edge& described = EdgeAt(plan, edge);
    layouts_.push_back({ToScalarType(described.dtype()), FromField(described.dimension_order())});
  }
}

absl::Status TransferQueue::PostReceive(const Step& step, int64_t samples, at::TensorList room) {
  Transfer transfer{&step, {}, nullptr};
  for (size_t i = 0; i < step.edges.size(); ++i) {
    const int edge = step.edges[i];
    const at::Tensor value = RoomFor(edge, samples, i < room.size() ? room[i] : at::Tensor());
    transfer.tensors.push_back(Ordered(value, layouts_[edge].order));
  }
  auto work = communicator_.Receive(channels_.Find(step.action.edge, DirectionOf(step.action.kind)), transfer.tensors);
  if (!work.ok()) return Describe(work.status(), step);
  transfer.work = *std::move(work);
  receives_.push_back(std::move(transfer));
  return absl::OkStatus();
}

absl::StatusOr<std::vector<at::Tensor>> TransferQueue::CompleteReceive(const Step& step) {
  if (receives_.empty() || receives_.front().step != &step) {
    return absl::InternalError(absl::StrCat(pipeline::ToString(step.action), " was not posted in the row's order"));
  }
  Transfer transfer = std::move(receives_.front());
  receives_.pop_front();
  GPIPE_RETURN_IF_ERROR(Await(transfer));
  traffic_[PeerOf(step.action)].received_bytes += TotalBytes(transfer.tensors);
  std::vector<at::Tensor> values;
  for (size_t i = 0; i < step.edges.size(); ++i) {
    values.push_back(Unordered(transfer.tensors[i], layouts_[step.edges[i]].order));
  }
  return values;
}

absl::Status TransferQueue::Send(const Step& step, int64_t samples, std::vector<at::Tensor> values) {
  for (size_t i = 0; i < values.size(); ++i) {
    const int edge = step.edges[i];
    if (absl::Status fits = CheckFits(edge, samples, values[i]); !fits.ok()) return Describe(fits, step);
    values[i] = Ordered(InOrder(values[i], layouts_[edge].order), layouts_[edge].order);
  }
  const int channel = channels_.Find(step.action.edge, DirectionOf(step.action.kind));
  if (channel < 0) return Describe(absl::InvalidArgumentError("the plan has no channel for it"), step);
  std::deque<Transfer>& sends = sends_[channel];
  const v1::Edge& edge = EdgeAt(plan_, step.action.edge);
  const auto places = static_cast<size_t>(pipeline::MaxUnreceived(edge.from_stage(), edge.to_stage()));
  if (sends.size() >= places) GPIPE_RETURN_IF_ERROR(FinishOldest(sends));
  auto work = communicator_.Send(channel, values);
  if (!work.ok()) return Describe(work.status(), step);
  traffic_[PeerOf(step.action)].sent_bytes += TotalBytes(values);
  sends.push_back({&step, std::move(values), *std::move(work)});
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
  const int peer = PeerOf(transfer.step->action);
  const ActivityTracker::Wait waiting(activity_, peer);
  const int64_t begun = SteadyNanos();
  absl::Status ended = transfer.work->Wait();
  if (device_.is_cpu()) traffic_[peer].wait_nanos += SteadyNanos() - begun;
  return Describe(ended, *transfer.step);
}

std::vector<TransferQueue::Traffic> TransferQueue::TakeTraffic() {
  return std::exchange(traffic_, std::vector<Traffic>(traffic_.size()));
}

int TransferQueue::PeerOf(const pipeline::Action& action) const {
  const v1::Edge& edge = EdgeAt(plan_, action.edge);
  const bool forward = DirectionOf(action.kind) == Direction::kForward;
  return plan_.stage_worker(pipeline::IsReceive(action.kind) == forward ? edge.from_stage() : edge.to_stage());
}

at::Tensor TransferQueue::RoomFor(int edge, int64_t samples, const at::Tensor& room) const {
  const std::vector<int64_t> sizes = SizesFor(EdgeAt(plan_, edge).shape(), samples);
  const Layout& layout = layouts_[edge];
  const bool fits = room.defined() && room.sizes() == at::IntArrayRef(sizes) && room.scalar_type() == layout.type &&
                    Ordered(room, layout.order).is_contiguous();
  return fits ? room : EmptyInOrder(sizes, layout.order, at::TensorOptions().dtype(layout.type).device(device_));
}

absl::Status TransferQueue::CheckFits(int edge, int64_t samples, const at::Tensor& tensor) const {
  const std::vector<int64_t> sizes = SizesFor(EdgeAt(plan_, edge).shape(), samples);
  const c10::ScalarType type = layouts_[edge].type;
  if (tensor.sizes() == at::IntArrayRef(sizes) && tensor.scalar_type() == type) return absl::OkStatus();
  return absl::InvalidArgumentError(absl::StrCat(EdgeAt(plan_, edge).value(), " is ",
                                                 c10::toString(tensor.scalar_type()), " [",
                                                 absl::StrJoin(tensor.sizes(), ", "), "], where the plan says ",
                                                 c10::toString(type), " [", absl::StrJoin(sizes, ", "), "]"));
}

absl::Status TransferQueue::Describe(const absl::Status& status, const Step& step) const {
  if (status.ok()) return status;
  const v1::Edge& first = EdgeAt(plan_, step.action.edge);
  const std::string values = absl::StrJoin(
      step.edges, ", ", [this](std::string* out, int edge) { absl::StrAppend(out, EdgeAt(plan_, edge).value()); });
  return absl::Status(
      status.code(), absl::StrCat(pipeline::ToString(step.action), " (", values, " between stages ", first.from_stage(),
                                  " and ", first.to_stage(), "): ", status.message()));
}

}  // namespace gpipe::worker
