#include "worker/exported/input_layout.h"

#include <utility>
#include <vector>

#include "common/exported/size_expression.h"
#include "worker/exported/result_layout.h"

namespace gpipe::worker {
std::map<std::string, DimensionOrder> InputLayouts(const exported::Program& program) {
  const exported::Symbols symbols = AnySizes(program);
  std::map<std::string, DimensionOrder> layouts;
  for (const exported::UserInput& input : program.user_inputs) {
    const auto sizes = exported::EvaluateSizes(input.meta.sizes, symbols);
    const auto strides = exported::EvaluateSizes(input.meta.strides, symbols);
    if (!sizes || !strides || sizes->size() != strides->size()) continue;
    if (DimensionOrder order = OrderOf(*sizes, *strides); !order.empty())
      layouts.emplace(input.value, std::move(order));
  }
  return layouts;
}

}  // namespace gpipe::worker
