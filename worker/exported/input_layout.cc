#include "worker/exported/input_layout.h"

#include <utility>

#include "worker/exported/exported_strides.h"

namespace gpipe::worker {

std::map<std::string, DimensionOrder> InputLayouts(const exported::Program& program) {
  const exported::Symbols symbols = AnySizes(program);
  std::map<std::string, DimensionOrder> layouts;
  for (const exported::UserInput& input : program.user_inputs) {
    const auto known = StridesOf(input.meta, symbols);
    if (!known) continue;
    if (DimensionOrder order = OrderOf(known->sizes, known->strides); !order.empty()) {
      layouts.emplace(input.value, std::move(order));
    }
  }
  return layouts;
}

}  // namespace gpipe::worker
