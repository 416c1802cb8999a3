#ifndef GPIPE_WORKER_ENGINE_CHANNELS_H_
#define GPIPE_WORKER_ENGINE_CHANNELS_H_

#include <vector>

#include "gpipe/v1/plan.pb.h"
#include "pipeline/action.h"
#include "worker/comm/communicator.h"

namespace gpipe::worker {

using pipeline::Direction;

// Workers that have copies of the same trained parameters: those of the first one and of each other are added up there,
// and the sum goes back.
struct SharingWorkers {
  std::vector<int> workers;  // Ascending.
  // From each worker but the first to it, and back: indices of channels.
  std::vector<int> to_first, from_first;
};

// The channels of an attempt: one per direction between two stages on different workers, `stages0-1.forward` and
// `stages0-1.backward` (only where a gradient comes back), and those of workers that share parameters. The same list on
// every worker. Not one per two workers: one that has several stages sends what the next cycle needs behind what is
// needed later, and neither may wait for the other.
struct ChannelMap {
  std::vector<Channel> channels;
  // By edge (EdgeAt): index into `channels`, -1 where both stages are on one worker. Edges between the same stages have
  // the same.
  std::vector<int> forward;
  std::vector<int> backward;
  std::vector<SharingWorkers> sharing;

  int Find(int edge, Direction direction) const {
    return direction == Direction::kForward ? forward[edge] : backward[edge];
  }
};

ChannelMap ChannelsOf(const v1::Plan& plan);

}  // namespace gpipe::worker

#endif  // GPIPE_WORKER_ENGINE_CHANNELS_H_
