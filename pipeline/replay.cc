#include "pipeline/replay.h"

#include "absl/strings/str_cat.h"
#include "pipeline/transfers.h"

namespace gpipe::pipeline {

Replay::Replay(const Schedule& schedule, const std::vector<Edge>& edges)
    : schedule_(schedule),
      edges_(edges),
      next_(schedule.rows.size(), 0),
      reduces_(schedule.rows.size(), 0),
      channels_(2 * edges.size()) {}

bool Replay::Ready(int worker) const {
  if (Done(worker)) return false;
  const Action& action = Next(worker);
  if (action.kind == ActionKind::kReduceGrad) return AllCameToReduce(worker);
  if (!IsTransfer(action.kind)) return true;
  const Need need = NeedOf(action);
  return need.number < static_cast<int64_t>(need.events.size());
}

const Replay::Event* Replay::Needed(int worker) const {
  if (!IsTransfer(Next(worker).kind)) return nullptr;
  const Need need = NeedOf(Next(worker));
  return need.number < 0 ? nullptr : &need.events[need.number];
}

void Replay::Take(int worker, double end, double transit) {
  const Action& action = Next(worker);
  ++next_[worker];
  if (action.kind == ActionKind::kReduceGrad) ++reduces_[worker];
  if (IsSend(action.kind)) channels_[ChannelOf(action)].sent.push_back({&action, end + transit});
  if (IsReceive(action.kind)) channels_[ChannelOf(action)].received.push_back({&action, end});
}

size_t Replay::ChannelOf(const Action& transfer) const {
  return 2 * transfer.edge + (DirectionOf(transfer.kind) == Direction::kForward ? 0 : 1);
}

int Replay::PlacesFor(const Action& send) const {
  return MaxUnreceived(edges_[send.edge].from_stage, edges_[send.edge].to_stage);
}

Replay::Need Replay::NeedOf(const Action& transfer) const {
  const Channel& channel = channels_[ChannelOf(transfer)];
  if (IsReceive(transfer.kind)) return {channel.sent, static_cast<int64_t>(channel.received.size())};
  return {channel.received, static_cast<int64_t>(channel.sent.size()) - PlacesFor(transfer)};
}

bool Replay::AllCameToReduce(int worker) const {
  for (int other = 0; other < workers(); ++other) {
    const bool at_one = !Done(other) && Next(other).kind == ActionKind::kReduceGrad;
    if (reduces_[other] + (at_one ? 1 : 0) <= reduces_[worker]) return false;
  }
  return true;
}

std::string Replay::Standstill() const {
  std::string text = "the rows wait for each other:";
  for (int worker = 0; worker < workers(); ++worker) absl::StrAppend(&text, " w", worker, " ", Describe(worker));
  return text;
}

std::string Replay::Describe(int worker) const {
  if (Done(worker)) return "is done";
  const Action& action = Next(worker);
  const bool is_full = IsSend(action.kind) && !Ready(worker);
  return absl::StrCat("at ", ToString(action),
                      is_full ? absl::StrCat(" (", PlacesFor(action), " before it are not received)") : "");
}

}  // namespace gpipe::pipeline
