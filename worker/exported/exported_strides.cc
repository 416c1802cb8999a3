#include "worker/exported/exported_strides.h"

#include <string>
#include <utility>
#include <variant>

namespace gpipe::worker {

std::optional<ExportedStrides> StridesOf(const exported::TensorMeta& meta, const exported::Symbols& symbols) {
  auto sizes = exported::EvaluateSizes(meta.sizes, symbols);
  auto strides = exported::EvaluateSizes(meta.strides, symbols);
  if (!meta.strided || !sizes || !strides || sizes->size() != strides->size()) return std::nullopt;
  return ExportedStrides{*std::move(sizes), *std::move(strides)};
}

exported::Symbols AnySizes(const exported::Program& program) {
  constexpr int64_t kUnit = 1024, kFirst = 3;
  exported::Symbols symbols;
  for (const exported::UserInput& input : program.user_inputs) {
    for (const exported::Size& size : input.meta.sizes) {
      const auto* expression = std::get_if<std::string>(&size);
      const auto symbol = expression == nullptr ? std::nullopt : exported::SymbolOf(*expression);
      if (symbol) symbols.emplace(*symbol, kUnit * (kFirst + static_cast<int64_t>(symbols.size())));
    }
  }
  return symbols;
}

}  // namespace gpipe::worker
