#ifndef GPIPE_WORKER_ENGINE_CHANNELS_H_
#define GPIPE_WORKER_ENGINE_CHANNELS_H_

#include <vector>

#include "gpipe/v1/plan.pb.h"
#include "worker/comm/communicator.h"

namespace gpipe::worker {

enum class Direction { kForward, kBackward };

// The channels of an attempt: one per edge and direction that crosses workers, `edge<i>.forward` and `edge<i>.backward`
// (only where a gradient comes back). The same list on every worker.
struct ChannelMap {
  std::vector<Channel> channels;
  // By edge (EdgeAt): index into `channels`, -1 where both stages are on one worker.
  std::vector<int> forward;
  std::vector<int> backward;

  int Find(int edge, Direction direction) const {
    return direction == Direction::kForward ? forward[edge] : backward[edge];
  }
};

ChannelMap ChannelsOf(const v1::Plan& plan);

}  // namespace gpipe::worker

#endif  // GPIPE_WORKER_ENGINE_CHANNELS_H_
