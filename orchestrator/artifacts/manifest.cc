// manifest.json: what WriteManifest writes and ReadManifest takes.

#include "absl/strings/str_cat.h"
#include "common/sha256.h"
#include "common/status_macros.h"
#include "common/string_view.h"
#include "nlohmann/json.hpp"
#include "orchestrator/artifacts/checkpoint_assembler.h"

namespace gpipe::orchestrator {
namespace {

using Json = nlohmann::ordered_json;

constexpr char kModelFile[] = "model.safetensors";
constexpr char kOptimizerFile[] = "optimizer.safetensors";

Json FileToJson(const v1::ArtifactRef& ref, int64_t tensors) {
  return Json{{"sha256", ref.sha256()}, {"size", ref.size()}, {"tensors", tensors}};
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

absl::Status FileFromJson(const Json& files, const char* name, v1::ArtifactRef& ref, int64_t& tensors) {
  const Json& file = Member(files, name);
  const Json& sha256 = Member(file, "sha256");
  if (!sha256.is_string() || !IsSha256(sha256.get_ref<const std::string&>())) {
    return Bad(absl::StrCat("files has no '", name, "' with a sha256"));
  }
  ref.set_sha256(sha256.get<std::string>());
  GPIPE_ASSIGN_OR_RETURN(int64_t size, Count(file, "size"));
  ref.set_size(size);
  GPIPE_ASSIGN_OR_RETURN(tensors, Count(file, "tensors"));
  return absl::OkStatus();
}

}  // namespace

std::string WriteManifest(const Manifest& manifest) {
  Json json = {{"format_version", Manifest::kFormatVersion},
               {"job", manifest.job},
               {"step", manifest.step},
               {"files",
                {{kModelFile, FileToJson(manifest.model, manifest.model_tensors)},
                 {kOptimizerFile, FileToJson(manifest.optimizer, manifest.optimizer_tensors)}}}};
  return json.dump(2) + "\n";
}

absl::StatusOr<Manifest> ReadManifest(std::string_view bytes) {
  Json json = Json::parse(bytes, nullptr, /*allow_exceptions=*/false);
  if (!json.is_object()) return Bad("not a JSON object");
  GPIPE_ASSIGN_OR_RETURN(int64_t version, Count(json, "format_version"));
  if (version != Manifest::kFormatVersion) {
    return Bad(absl::StrCat("format version ", version, " is not ", Manifest::kFormatVersion));
  }
  Manifest manifest;
  if (const Json& job = Member(json, "job"); job.is_string()) manifest.job = job.get<std::string>();
  GPIPE_ASSIGN_OR_RETURN(manifest.step, Count(json, "step"));
  const Json& files = Member(json, "files");
  GPIPE_RETURN_IF_ERROR(FileFromJson(files, kModelFile, manifest.model, manifest.model_tensors));
  GPIPE_RETURN_IF_ERROR(FileFromJson(files, kOptimizerFile, manifest.optimizer, manifest.optimizer_tensors));
  return manifest;
}

}  // namespace gpipe::orchestrator
