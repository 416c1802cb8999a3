#include "common/safetensors/shard_names.h"

#include <algorithm>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "absl/strings/str_split.h"
#include "absl/strings/strip.h"
#include "common/string_view.h"

namespace gpipe::safetensors {
namespace {

constexpr char kSuffix[] = ".safetensors";
constexpr size_t kDigits = 5;

bool IsNumber(absl::string_view text) {
  return text.size() >= kDigits && std::all_of(text.begin(), text.end(), [](char c) { return c >= '0' && c <= '9'; });
}

}  // namespace

std::string WholeName(std::string_view stem) { return absl::StrCat(AbslView(stem), kSuffix); }

std::string IndexName(std::string_view stem) { return absl::StrCat(AbslView(stem), kSuffix, ".index.json"); }

std::string ShardName(std::string_view stem, size_t number, size_t count) {
  return absl::StrFormat("%s-%05d-of-%05d%s", AbslView(stem), number, count, kSuffix);
}

bool HoldsTensorsOf(std::string_view stem, std::string_view name) {
  absl::string_view rest = AbslView(name);
  if (!absl::ConsumePrefix(&rest, AbslView(stem)) || !absl::ConsumeSuffix(&rest, kSuffix)) return false;
  if (rest.empty()) return true;
  if (!absl::ConsumePrefix(&rest, "-")) return false;
  const std::pair<absl::string_view, absl::string_view> numbers = absl::StrSplit(rest, absl::MaxSplits("-of-", 1));
  return IsNumber(numbers.first) && IsNumber(numbers.second);
}

bool BelongsTo(std::string_view stem, std::string_view name) {
  return HoldsTensorsOf(stem, name) || name == IndexName(stem);
}

}  // namespace gpipe::safetensors
