#ifndef GPIPE_WORKER_EXPORTED_RESULT_SLOT_H_
#define GPIPE_WORKER_EXPORTED_RESULT_SLOT_H_

#include <ATen/core/ivalue.h>

#include <map>
#include <optional>
#include <string>
#include <utility>

#include "worker/exported/frame.h"
#include "worker/model/tensor_layout.h"

namespace gpipe::worker {

// Of values, by name.
using Layouts = std::map<std::string, DimensionOrder>;

// Where a result goes, and the layout that it must have, if any.
class ResultSlot {
 public:
  // The slot of a new value; nullopt for one without a name, which nothing uses.
  static std::optional<ResultSlot> Create(const std::string& name, Slots& slots, const Layouts& layouts) {
    if (name.empty()) return std::nullopt;
    const auto layout = layouts.find(name);
    return ResultSlot(slots.Add(name), layout == layouts.end() ? std::nullopt : std::optional(layout->second));
  }

  // A copy that has the layout, where the value has not.
  void Store(c10::IValue value, Frame& frame) const {
    frame[slot_] = order_ && value.isTensor() ? DenseInOrder(value.toTensor(), *order_) : std::move(value);
  }

 private:
  ResultSlot(size_t slot, std::optional<DimensionOrder> order) : slot_(slot), order_(std::move(order)) {}

  size_t slot_;
  std::optional<DimensionOrder> order_;
};

}  // namespace gpipe::worker

#endif  // GPIPE_WORKER_EXPORTED_RESULT_SLOT_H_
