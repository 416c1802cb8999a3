#ifndef GPIPE_WORKER_ENGINE_VALUE_STORE_H_
#define GPIPE_WORKER_ENGINE_VALUE_STORE_H_

#include <ATen/core/Tensor.h>

#include <utility>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/strings/str_cat.h"
#include "worker/engine/channels.h"

namespace gpipe::worker {

// The values of a round that were made or received and not used yet. The same for values that stay on this worker and
// for those that go through the communicator, so that a stage cannot tell. Each has a slot of its own, whose number is
// computed. Used by the engine's thread only.
class ValueStore {
 public:
  // A round begins that has no other edges and micro-batches than these. REQUIRES: empty.
  void Begin(int edges, size_t micro_batches) {
    micro_batches_ = micro_batches;
    slots_.resize(2 * static_cast<size_t>(edges) * micro_batches);
  }

  void Put(int edge, Direction direction, int micro_batch, at::Tensor value) {
    at::Tensor& slot = slots_[SlotOf(edge, direction, micro_batch)];
    filled_ += slot.defined() ? 0 : 1;
    slot = std::move(value);
  }

  // Hands the value out; INTERNAL when it is not there, which a valid schedule rules out.
  absl::StatusOr<at::Tensor> Take(int edge, Direction direction, int micro_batch) {
    at::Tensor& slot = slots_[SlotOf(edge, direction, micro_batch)];
    if (slot.defined()) {
      --filled_;
      return std::exchange(slot, at::Tensor());
    }
    return absl::InternalError(absl::StrCat("edge ", edge, " has no ",
                                            direction == Direction::kForward ? "value" : "gradient", " of micro-batch ",
                                            micro_batch));
  }

  bool empty() const { return filled_ == 0; }

 private:
  size_t SlotOf(int edge, Direction direction, int micro_batch) const {
    const size_t line = 2 * static_cast<size_t>(edge) + (direction == Direction::kForward ? 0 : 1);
    return line * micro_batches_ + static_cast<size_t>(micro_batch);
  }

  size_t micro_batches_ = 0;
  std::vector<at::Tensor> slots_;
  size_t filled_ = 0;
};

}  // namespace gpipe::worker

#endif  // GPIPE_WORKER_ENGINE_VALUE_STORE_H_
