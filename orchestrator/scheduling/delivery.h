#ifndef GPIPE_ORCHESTRATOR_SCHEDULING_DELIVERY_H_
#define GPIPE_ORCHESTRATOR_SCHEDULING_DELIVERY_H_

#include <functional>
#include <utility>

#include "absl/status/status.h"

namespace gpipe::orchestrator {

// What the owner of a queue decides under its lock and does without it: to hand the next item, or an empty one and the
// end, to whoever waits for it; or nothing, where nobody does.
template <typename Item>
struct Delivery {
  using Function = std::function<void(Item item, const absl::Status& end)>;

  Function deliver;
  Item item = {};
  absl::Status end;

  void Run() {
    if (deliver) deliver(std::move(item), end);
  }
};

}  // namespace gpipe::orchestrator

#endif  // GPIPE_ORCHESTRATOR_SCHEDULING_DELIVERY_H_
