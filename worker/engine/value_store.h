#ifndef GPIPE_WORKER_ENGINE_VALUE_STORE_H_
#define GPIPE_WORKER_ENGINE_VALUE_STORE_H_

#include <ATen/core/Tensor.h>

#include <map>
#include <tuple>
#include <utility>

#include "absl/status/statusor.h"
#include "absl/strings/str_cat.h"
#include "worker/engine/channels.h"

namespace gpipe::worker {

// The values of a round that were made or received and not used yet. The same for values that stay on this worker and
// for those that go through the communicator, so that a stage cannot tell. Used by the engine's thread only.
class ValueStore {
 public:
  void Put(int edge, Direction direction, int micro_batch, at::Tensor value) {
    values_.insert_or_assign({edge, direction, micro_batch}, std::move(value));
  }

  // Hands the value out; INTERNAL when it is not there, which a valid schedule rules out.
  absl::StatusOr<at::Tensor> Take(int edge, Direction direction, int micro_batch) {
    auto node = values_.extract({edge, direction, micro_batch});
    if (!node.empty()) return std::move(node.mapped());
    return absl::InternalError(absl::StrCat("edge ", edge, " has no ",
                                            direction == Direction::kForward ? "value" : "gradient", " of micro-batch ",
                                            micro_batch));
  }

  bool empty() const { return values_.empty(); }

 private:
  std::map<std::tuple<int, Direction, int>, at::Tensor> values_;
};

}  // namespace gpipe::worker

#endif  // GPIPE_WORKER_ENGINE_VALUE_STORE_H_
