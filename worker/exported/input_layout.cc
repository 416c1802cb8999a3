#include "worker/exported/input_layout.h"

#include <cstdint>
#include <optional>
#include <utility>
#include <vector>

#include "common/exported/size_expression.h"

namespace gpipe::worker {
namespace {

// The order does not depend on how large a size is, only on which one it is: every symbol gets a size of its own.
exported::Symbols AnySizes(const exported::Program& program) {
  constexpr int64_t kFirst = 3;
  exported::Symbols symbols;
  for (const exported::UserInput& input : program.user_inputs) {
    for (const exported::Size& size : input.meta.sizes) {
      const auto* expression = std::get_if<std::string>(&size);
      const auto symbol = expression == nullptr ? std::nullopt : exported::SymbolOf(*expression);
      if (symbol) symbols.emplace(*symbol, kFirst + static_cast<int64_t>(symbols.size()));
    }
  }
  return symbols;
}

}  // namespace

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
