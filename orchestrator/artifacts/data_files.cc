#include "orchestrator/artifacts/data_files.h"

#include <utility>

#include "absl/strings/str_cat.h"
#include "common/field_error.h"

namespace gpipe::orchestrator {

absl::StatusOr<DataFile> OpenDataFile(std::string_view field, const std::string& path, const FileMap& files,
                                      const ArtifactStore& store) {
  auto entry = files.find(path);
  if (entry == files.end()) return FieldError(field, absl::StrCat("'", path, "' is not among the request's files"));
  absl::StatusOr<std::filesystem::path> content = store.Path(entry->second);
  if (!content.ok()) {
    return FieldError(field, absl::StrCat("'", path, "' was not uploaded: ", content.status().message()));
  }
  absl::StatusOr<safetensors::Header> header = safetensors::ReadHeader(*content);
  if (!header.ok()) {
    return FieldError(field, absl::StrCat("'", path, "' cannot be used: ", header.status().message()));
  }
  return DataFile{.path = *std::move(content), .header = *std::move(header)};
}

}  // namespace gpipe::orchestrator
