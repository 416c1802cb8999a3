#include "worker/engine/channels.h"

#include "absl/strings/str_cat.h"
#include "common/plan/evaluation.h"

namespace gpipe::worker {

ChannelMap ChannelsOf(const v1::Plan& plan) {
  ChannelMap map;
  map.forward.assign(CountEdges(plan), -1);
  map.backward.assign(CountEdges(plan), -1);
  for (int i = 0; i < CountEdges(plan); ++i) {
    const v1::Edge& edge = EdgeAt(plan, i);
    const int from = plan.stage_worker(edge.from_stage()), to = plan.stage_worker(edge.to_stage());
    if (from == to) continue;
    map.forward[i] = static_cast<int>(map.channels.size());
    map.channels.push_back({.name = absl::StrCat("edge", i, ".forward"), .sender = from, .receiver = to});
    if (!edge.requires_grad()) continue;
    map.backward[i] = static_cast<int>(map.channels.size());
    map.channels.push_back({.name = absl::StrCat("edge", i, ".backward"), .sender = to, .receiver = from});
  }
  return map;
}

}  // namespace gpipe::worker
