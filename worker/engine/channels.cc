#include "worker/engine/channels.h"

#include <algorithm>
#include <string>
#include <utility>

#include "absl/strings/str_cat.h"
#include "common/plan/evaluation.h"
#include "common/plan/shared_tensors.h"

namespace gpipe::worker {
namespace {

int AddChannel(ChannelMap& map, std::string name, int sender, int receiver) {
  map.channels.push_back({.name = std::move(name), .sender = sender, .receiver = receiver});
  return static_cast<int>(map.channels.size()) - 1;
}

// That which is there, or a new one.
int ChannelNamed(ChannelMap& map, const std::string& name, int sender, int receiver) {
  const auto known = std::ranges::find(map.channels, name, &Channel::name);
  if (known != map.channels.end()) return static_cast<int>(known - map.channels.begin());
  return AddChannel(map, name, sender, receiver);
}

// One group for all parameters of the same workers: over NCCL a channel is a communicator.
void AddSharing(const v1::Plan& plan, ChannelMap& map) {
  for (const SharedTensor& shared : SharedTensors(plan)) {
    const auto is_same = [&](const SharingWorkers& group) { return group.workers == shared.workers; };
    if (!shared.tensor->trainable() || std::ranges::any_of(map.sharing, is_same)) continue;
    const size_t number = map.sharing.size();
    SharingWorkers& group = map.sharing.emplace_back();
    group.workers = shared.workers;
    for (size_t i = 1; i < group.workers.size(); ++i) {
      const int first = group.workers[0], other = group.workers[i];
      const std::string name = absl::StrCat("shared", number, ".", i);
      group.to_first.push_back(AddChannel(map, name + ".gradient", other, first));
      group.from_first.push_back(AddChannel(map, name + ".sum", first, other));
    }
  }
}

}  // namespace

ChannelMap ChannelsOf(const v1::Plan& plan) {
  ChannelMap map;
  map.forward.assign(CountEdges(plan), -1);
  map.backward.assign(CountEdges(plan), -1);
  for (int i = 0; i < CountEdges(plan); ++i) {
    const v1::Edge& edge = EdgeAt(plan, i);
    const int from = plan.stage_worker(edge.from_stage()), to = plan.stage_worker(edge.to_stage());
    if (from == to) continue;
    const std::string name = absl::StrCat("stages", edge.from_stage(), "-", edge.to_stage());
    map.forward[i] = ChannelNamed(map, name + ".forward", from, to);
    if (edge.requires_grad()) map.backward[i] = ChannelNamed(map, name + ".backward", to, from);
  }
  AddSharing(plan, map);
  return map;
}

}  // namespace gpipe::worker
