#include "pipeline/replay.h"

#include "absl/strings/str_cat.h"
#include "pipeline/transfers.h"

namespace gpipe::pipeline {

Replay::ChannelKey Replay::KeyOf(const Action& action) { return {action.edge, IsForwardTransfer(action.kind)}; }

bool Replay::Ready(int worker) const {
  if (Done(worker)) return false;
  const Action& action = Next(worker);
  if (action.kind == ActionKind::kReduceGrad) return AllCameToReduce(worker);
  return !IsReceive(action.kind) || MessageIsThere(action);
}

bool Replay::MessageIsThere(const Action& receive) const {
  const auto channel = channels_.find(KeyOf(receive));
  return channel != channels_.end() && channel->second.taken < channel->second.messages.size();
}

bool Replay::AllCameToReduce(int worker) const {
  for (int other = 0; other < workers(); ++other) {
    const bool at_one = !Done(other) && Next(other).kind == ActionKind::kReduceGrad;
    if (reduces_[other] + (at_one ? 1 : 0) <= reduces_[worker]) return false;
  }
  return true;
}

double Replay::Take(int worker, double sent_at) {
  const Action& action = Next(worker);
  ++next_[worker];
  if (action.kind == ActionKind::kReduceGrad) ++reduces_[worker];
  if (IsSend(action.kind)) channels_[KeyOf(action)].messages.push_back({&action, sent_at});
  if (!IsReceive(action.kind)) return 0;
  Channel& channel = channels_[KeyOf(action)];
  return channel.messages[channel.taken++].arrives;
}

const Action& Replay::Arriving(int worker) const {
  const Channel& channel = channels_.at(KeyOf(Next(worker)));
  return *channel.messages[channel.taken].send;
}

std::string Replay::Standstill() const {
  std::string text = "the rows wait for each other:";
  for (int worker = 0; worker < workers(); ++worker) {
    absl::StrAppend(&text, " w", worker, " ", Done(worker) ? std::string("is done") : "at " + ToString(Next(worker)));
  }
  return text;
}

}  // namespace gpipe::pipeline
