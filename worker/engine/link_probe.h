#ifndef GPIPE_WORKER_ENGINE_LINK_PROBE_H_
#define GPIPE_WORKER_ENGINE_LINK_PROBE_H_

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <memory>
#include <optional>
#include <vector>

#include "absl/status/statusor.h"
#include "gpipe/v1/plan.pb.h"
#include "worker/comm/connect.h"
#include "worker/engine/action_timer.h"
#include "worker/engine/beacon.h"

namespace gpipe::worker {

// The channels to measure with: link i joins workers i and i + 1, there on channel 2i and back on 2i + 1.
std::vector<Channel> LinkChannels(int workers);

// A message of one size, and how long it takes one way.
struct MessageTime {
  int64_t bytes = 0;
  double seconds = 0;
};

// The line through two sizes. Where the larger one was not slower the latency is lost in the noise, and 0.
// REQUIRES: large.bytes > small.bytes; large.seconds > 0.
v1::LinkSpeed LineThrough(const MessageTime& small, const MessageTime& large);

// One worker's part in measuring the links between neighbouring workers, over the communicator that a job on them would
// use: messages there and back, halved, as the device sees them. Links of even and of odd numbers take turns, so that
// each worker is at one link at a time, and all are done after two. Used by the engine's thread only.
class LinkProbe {
 public:
  // `options` without channels.
  LinkProbe(CommOptions options, Connector connect, const Beacon& beacon);
  ~LinkProbe();
  LinkProbe(const LinkProbe&) = delete;
  LinkProbe& operator=(const LinkProbe&) = delete;

  // Once: connects with the other workers and measures. nullopt: this is the last worker, which has no next one.
  absl::StatusOr<std::optional<v1::LinkSpeed>> Measure();

  // It failed: breaks the connections, so that no peer waits for this worker.
  void Abandon(const absl::Status& reason);

 private:
  absl::StatusOr<std::optional<v1::LinkSpeed>> MeasureConnected();
  absl::StatusOr<v1::LinkSpeed> MeasureLink(int link);
  absl::StatusOr<MessageTime> TimeMessages(int link, int64_t bytes, int count);
  at::Tensor Zeros(int64_t bytes) const;
  absl::Status Send(int channel, const at::Tensor& tensor);
  absl::Status Receive(int channel, const at::Tensor& tensor);

  const CommOptions options_;
  const Connector connect_;
  const Beacon beacon_;
  const std::unique_ptr<ActionTimer> timer_;
  std::unique_ptr<Communicator> communicator_;
};

}  // namespace gpipe::worker

#endif  // GPIPE_WORKER_ENGINE_LINK_PROBE_H_
