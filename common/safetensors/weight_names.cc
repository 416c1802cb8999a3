#include "common/safetensors/weight_names.h"

#include <algorithm>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "absl/strings/str_replace.h"
#include "absl/strings/string_view.h"
#include "absl/strings/strip.h"
#include "common/string_view.h"

namespace gpipe::safetensors {
namespace {

constexpr char kParallel[] = "module.";
constexpr char kCompiled[] = "_orig_mod.";

// Without what wrappers have added. They may be around each other, in any order.
std::string BareName(std::string_view name) {
  absl::string_view bare = AbslView(name);
  while (absl::ConsumePrefix(&bare, kParallel) || absl::ConsumePrefix(&bare, kCompiled)) {
  }
  return absl::StrReplaceAll(bare, {{absl::StrCat(".", kCompiled), "."}});
}

}  // namespace

std::vector<std::string> WithoutPrefix(std::string_view prefix, std::vector<std::string> names) {
  for (std::string& name : names) {
    if (absl::StartsWith(name, AbslView(prefix))) name.erase(0, prefix.size());
  }
  return names;
}

WeightNames::WeightNames(const std::vector<std::string>& names) {
  for (const std::string& name : names) by_bare_name_[BareName(name)].push_back(name);
}

std::vector<std::string> WeightNames::Meaning(std::string_view name) const {
  const auto found = by_bare_name_.find(BareName(name));
  return found == by_bare_name_.end() ? std::vector<std::string>() : found->second;
}

absl::StatusOr<std::string> WeightNames::Find(const std::vector<std::string>& names) const {
  for (const std::string& name : names) {
    const std::vector<std::string> found = Meaning(name);
    if (found.empty()) continue;
    if (found.size() == 1) return found.front();
    if (std::find(found.begin(), found.end(), name) != found.end()) return name;
    return absl::InvalidArgumentError(
        absl::StrCat("'", absl::StrJoin(found, "' and '"), "' are both the model's '", name, "'"));
  }
  return absl::NotFoundError(absl::StrCat("there is no tensor '", absl::StrJoin(names, "' or '"), "' in it"));
}

}  // namespace gpipe::safetensors
