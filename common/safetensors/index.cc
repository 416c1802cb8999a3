#include "common/safetensors/index.h"

#include <algorithm>
#include <set>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "common/file.h"
#include "common/json_object.h"
#include "common/status_macros.h"
#include "common/string_view.h"
#include "nlohmann/json.hpp"

namespace gpipe::safetensors {
namespace {

namespace fs = std::filesystem;

constexpr uint64_t kMaxBytes = 100'000'000;
// The format needs two levels; metadata may have some of its own.
constexpr int kMaxJsonDepth = 8;

absl::Status Bad(std::string_view what) {
  return absl::InvalidArgumentError(absl::StrCat("not a good index of safetensors files: ", AbslView(what)));
}

// Whether a path of the index leads to a file in or below its folder.
bool StaysInFolder(const std::string& path) {
  const fs::path relative(path);
  if (path.empty() || relative.is_absolute() || !relative.has_filename()) return false;
  return std::none_of(relative.begin(), relative.end(), [](const fs::path& part) { return part == ".."; });
}

}  // namespace

bool IsIndex(std::string_view path) { return absl::EndsWith(AbslView(path), ".json"); }

absl::StatusOr<WeightMap> ParseIndex(std::string_view text, const std::string& path_in_spec) {
  const absl::StatusOr<nlohmann::json> parsed = ParseJsonObject(text, kMaxJsonDepth);
  if (!parsed.ok()) return Bad(absl::StrCat("it ", parsed.status().message()));
  const auto map = parsed->find("weight_map");
  if (map == parsed->end() || !map->is_object()) return Bad("it has no object weight_map");
  const fs::path folder = fs::path(path_in_spec).parent_path();
  WeightMap index;
  for (const auto& [name, shard] : map->items()) {
    if (!shard.is_string()) return Bad(absl::StrCat("the file of '", name, "' is not a text"));
    const std::string path = shard.get<std::string>();
    if (!StaysInFolder(path)) return Bad(absl::StrCat("'", path, "' of '", name, "' is no file beside the index"));
    index[name] = (folder / path).lexically_normal().string();
  }
  return index;
}

absl::StatusOr<WeightMap> ReadIndex(const fs::path& file, const std::string& path_in_spec) {
  std::error_code error;
  const uint64_t size = fs::file_size(file, error);
  if (!error && size > kMaxBytes) return Bad(absl::StrCat("its ", size, " bytes are over the limit of 100 MB"));
  GPIPE_ASSIGN_OR_RETURN(const std::string text, ReadFile(file));
  return ParseIndex(text, path_in_spec);
}

std::string BuildIndex(const WeightMap& file_of, uint64_t total_size) {
  const nlohmann::ordered_json index = {{"metadata", {{"total_size", total_size}}}, {"weight_map", file_of}};
  return index.dump(2) + "\n";
}

std::vector<std::string> ShardsOf(const WeightMap& index) {
  std::set<std::string> shards;
  for (const auto& [name, shard] : index) shards.insert(shard);
  return {shards.begin(), shards.end()};
}

}  // namespace gpipe::safetensors
