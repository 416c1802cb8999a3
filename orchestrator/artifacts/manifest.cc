#include "orchestrator/artifacts/manifest.h"

#include <algorithm>
#include <iterator>
#include <set>

#include "absl/strings/str_cat.h"
#include "common/safetensors/shard_names.h"
#include "common/sha256.h"
#include "common/status_macros.h"
#include "common/string_view.h"
#include "nlohmann/json.hpp"
#include "orchestrator/jobs/stored_job.h"

namespace gpipe::orchestrator {
namespace {

using Json = nlohmann::ordered_json;

// Two files by fixed names; and any number of them.
constexpr int64_t kTwoFiles = 1, kManyFiles = 2;
constexpr const char* kStems[] = {kModelStem, kOptimizerStem};

bool HasTwoFiles(const Manifest& manifest) {
  return manifest.files.size() == 2 && std::ranges::all_of(kStems, [&](const char* stem) {
           return manifest.files.contains(safetensors::WholeName(stem));
         });
}

Json FileToJson(const Manifest::File& file) {
  return Json{{"sha256", file.ref.sha256()}, {"size", file.ref.size()}, {"tensors", file.tensors}};
}

absl::Status Bad(std::string_view what) {
  return absl::InvalidArgumentError(absl::StrCat("manifest.json: ", AbslView(what)));
}

// The member, or null: never throws.
const Json& Member(const Json& object, const char* name) {
  static const Json kNull;
  auto found = object.find(name);
  return found == object.end() ? kNull : *found;
}

absl::StatusOr<int64_t> Count(const Json& object, const char* name) {
  const Json& value = Member(object, name);
  if (!value.is_number_integer() || value.get<int64_t>() < 0) {
    return Bad(absl::StrCat("'", name, "' is not a whole number from 0"));
  }
  return value.get<int64_t>();
}

absl::StatusOr<Manifest::File> FileFromJson(const std::string& name, const Json& json) {
  const Json& sha256 = Member(json, "sha256");
  if (!sha256.is_string() || !IsSha256(sha256.get_ref<const std::string&>())) {
    return Bad(absl::StrCat("files has no '", name, "' with a sha256"));
  }
  Manifest::File file;
  file.ref.set_sha256(sha256.get<std::string>());
  GPIPE_ASSIGN_OR_RETURN(int64_t size, Count(json, "size"));
  file.ref.set_size(size);
  GPIPE_ASSIGN_OR_RETURN(file.tensors, Count(json, "tensors"));
  return file;
}

// Each stem has tensors, and nothing else is there.
absl::Status CheckNames(const Manifest& manifest) {
  std::set<std::string> found;
  for (const auto& [name, file] : manifest.files) {
    const auto stem = std::ranges::find_if(kStems, [&](const char* s) { return safetensors::BelongsTo(s, name); });
    if (stem == std::end(kStems)) return Bad(absl::StrCat("files has '", name, "', which is no checkpoint's file"));
    if (safetensors::HoldsTensorsOf(*stem, name)) found.insert(*stem);
  }
  for (const char* stem : kStems) {
    if (!found.contains(stem)) return Bad(absl::StrCat("files has no '", safetensors::WholeName(stem), "'"));
  }
  return absl::OkStatus();
}

}  // namespace

std::string WriteManifest(const Manifest& manifest) {
  Json files = Json::object();
  for (const auto& [name, file] : manifest.files) files[name] = FileToJson(file);
  Json json = {{"format_version", HasTwoFiles(manifest) ? kTwoFiles : kManyFiles},
               {"job", manifest.job},
               {"step", manifest.step},
               {"files", files}};
  return json.dump(2) + "\n";
}

absl::StatusOr<Manifest> ReadManifest(std::string_view bytes) {
  Json json = Json::parse(bytes, nullptr, /*allow_exceptions=*/false);
  if (!json.is_object()) return Bad("not a JSON object");
  GPIPE_ASSIGN_OR_RETURN(int64_t version, Count(json, "format_version"));
  if (version != kTwoFiles && version != kManyFiles) {
    return Bad(absl::StrCat("format version ", version, " is neither ", kTwoFiles, " nor ", kManyFiles));
  }
  Manifest manifest;
  if (const Json& job = Member(json, "job"); job.is_string()) manifest.job = job.get<std::string>();
  GPIPE_ASSIGN_OR_RETURN(manifest.step, Count(json, "step"));
  const Json& files = Member(json, "files");
  if (!files.is_object()) return Bad("'files' is not an object");
  for (const auto& [name, file] : files.items()) {
    GPIPE_ASSIGN_OR_RETURN(manifest.files[name], FileFromJson(name, file));
  }
  GPIPE_RETURN_IF_ERROR(CheckNames(manifest));
  if (version == kTwoFiles && !HasTwoFiles(manifest)) return Bad("format version 1 has two files");
  return manifest;
}

}  // namespace gpipe::orchestrator
