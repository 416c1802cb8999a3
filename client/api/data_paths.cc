#include "client/api/data_paths.h"

#include "common/data/pattern.h"
#include "common/data/sample_table.h"
#include "common/field_error.h"
#include "common/string_view.h"

namespace gpipe::client {

std::filesystem::path PathOf(const spec::SpecFile& file, const std::string& path) {
  return file.path.parent_path() / path;
}

absl::Status ExpandPatterns(spec::SpecFile& file) {
  FieldErrors errors;
  const std::string folder = file.path.has_parent_path() ? file.path.parent_path().string() + "/" : "";
  for (const spec::FileList& list : spec::DataFilesOf(file.spec)) {
    google::protobuf::RepeatedPtrField<std::string> expanded;
    for (const std::string& path : *list.paths) {
      if (data::IsShared(path)) {
        *expanded.Add() = path;
        continue;
      }
      const auto matches = data::Expand(std::filesystem::path(path).is_absolute() ? "" : folder, path);
      if (!matches.ok()) errors.Add(list.field, StdView(matches.status().message()));
      for (const std::string& match : matches.value_or(std::vector<std::string>())) *expanded.Add() = match;
    }
    *list.paths = std::move(expanded);
  }
  return errors.ToStatus();
}

void AddTokenIndices(const spec::SpecFile& file, std::vector<spec::NamedFile>& files) {
  v1::JobSpec copy = file.spec;
  for (const spec::FileList& list : spec::DataFilesOf(copy)) {
    if (list.tokens == nullptr) continue;
    for (const std::string& path : *list.paths) {
      const std::string index = data::IndexBeside(path);
      std::error_code error;
      if (data::IsShared(path) || !std::filesystem::exists(PathOf(file, index), error)) continue;
      files.push_back({list.field, index});
    }
  }
}

}  // namespace gpipe::client
