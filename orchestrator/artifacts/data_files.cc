#include "orchestrator/artifacts/data_files.h"

#include <filesystem>
#include <string_view>
#include <utility>

#include "absl/strings/str_cat.h"
#include "common/field_error.h"
#include "common/safetensors/index.h"
#include "common/status_macros.h"
#include "common/string_view.h"

namespace gpipe::orchestrator {
namespace {

constexpr char kWeights[] = "model.weights";

using Tensors = std::map<std::string, safetensors::TensorInfo>;

absl::StatusOr<std::filesystem::path> Find(std::string_view field, const std::string& path, const FileMap& files,
                                           const ArtifactStore& store) {
  auto entry = files.find(path);
  if (entry == files.end()) return FieldError(field, absl::StrCat("'", path, "' is not among the request's files"));
  absl::StatusOr<std::filesystem::path> content = store.Path(entry->second);
  if (content.ok()) return content;
  return FieldError(field, absl::StrCat("'", path, "' was not uploaded: ", content.status().message()));
}

absl::Status Unusable(std::string_view field, const std::string& path, const absl::Status& why) {
  return FieldError(field, absl::StrCat("'", path, "' cannot be used: ", why.message()));
}

// The header of a safetensors file of weights, found by its content. INVALID_ARGUMENT: no content was given for `path`,
// it was not uploaded, or it is not a good file.
absl::StatusOr<safetensors::Header> ReadWeights(const std::string& path, const FileMap& files,
                                                const ArtifactStore& store) {
  GPIPE_ASSIGN_OR_RETURN(const std::filesystem::path content, Find(kWeights, path, files, store));
  absl::StatusOr<safetensors::Header> header = safetensors::ReadHeader(content);
  if (!header.ok()) return Unusable(kWeights, path, header.status());
  return header;
}

// Those of the index, each as its shard has it.
absl::StatusOr<Tensors> TensorsOf(const safetensors::WeightMap& index, const FileMap& files,
                                  const ArtifactStore& store) {
  FieldErrors errors;
  std::map<std::string, safetensors::Header> shards;
  for (const std::string& path : safetensors::ShardsOf(index)) {
    absl::StatusOr<safetensors::Header> shard = ReadWeights(path, files, store);
    if (shard.ok()) {
      shards[path] = *std::move(shard);
    } else {
      errors.Add(shard.status());
    }
  }
  Tensors tensors;
  for (const auto& [name, path] : index) {
    const auto shard = shards.find(path);
    if (shard == shards.end()) continue;  // Told already.
    const auto found = shard->second.tensors.find(name);
    if (found != shard->second.tensors.end()) {
      tensors.insert(*found);
    } else {
      errors.Add(kWeights, absl::StrCat("'", path, "' has no tensor '", name, "', which the index says is there"));
    }
  }
  if (!errors.empty()) return errors.ToStatus();
  return tensors;
}

// Parameters that a worker has found: what it says of samples is their first dimension.
Tensors TensorsOf(const data::SampleTable& table) {
  Tensors tensors;
  for (const auto& [name, found] : table.tensors) {
    safetensors::TensorInfo& info = tensors[name];
    info.dtype = found.dtype;
    info.dtype_name = safetensors::DtypeName(found.dtype);
    if (found.single) continue;
    info.shape = {found.samples};
    info.shape.insert(info.shape.end(), found.shape.begin(), found.shape.end());
  }
  return tensors;
}

}  // namespace

absl::StatusOr<data::SampleTable> OpenSamples(const std::string& field,
                                              const google::protobuf::RepeatedPtrField<std::string>& paths,
                                              const v1::Tokens* tokens, const SpecFiles& where) {
  if (const auto known = where.shared.find(field); known != where.shared.end()) return known->second;
  const auto& [files, store, shared] = where;
  std::vector<data::DataPath> found;
  for (const std::string& path : paths) {
    data::DataPath& file = found.emplace_back(data::DataPath{.name = path, .path = {}});
    GPIPE_ASSIGN_OR_RETURN(file.path, Find(field, path, files, store));
    const std::string index = data::IndexBeside(path);
    if (tokens == nullptr || !files.contains(index)) continue;
    GPIPE_ASSIGN_OR_RETURN(file.index, Find(field, index, files, store));
  }
  absl::StatusOr<data::SampleTable> table =
      tokens == nullptr ? data::OpenTensors(std::move(found)) : data::OpenTokens(std::move(found), *tokens);
  if (!table.ok()) return FieldError(field, StdView(table.status().message()));
  return table;
}

absl::StatusOr<data::SampleTable> OpenSamples(const std::string& field, const v1::Dataset& dataset,
                                              const SpecFiles& where) {
  if (!dataset.has_tokens()) return OpenSamples(field + ".path", dataset.path(), /*tokens=*/nullptr, where);
  return OpenSamples(field + ".tokens.path", dataset.tokens().path(), &dataset.tokens(), where);
}

absl::StatusOr<Tensors> OpenWeights(const v1::JobSpec& spec, const SpecFiles& where) {
  if (const auto known = where.shared.find(kWeights); known != where.shared.end()) return TensorsOf(known->second);
  const auto& [files, store, shared] = where;
  const std::string& path = spec.model().weights();
  if (!safetensors::IsIndex(path)) {
    GPIPE_ASSIGN_OR_RETURN(safetensors::Header header, ReadWeights(path, files, store));
    return std::move(header.tensors);
  }
  GPIPE_ASSIGN_OR_RETURN(const std::filesystem::path content, Find(kWeights, path, files, store));
  const absl::StatusOr<safetensors::WeightMap> index = safetensors::ReadIndex(content, path);
  if (!index.ok()) return Unusable(kWeights, path, index.status());
  return TensorsOf(*index, files, store);
}

}  // namespace gpipe::orchestrator
