#include "orchestrator/artifacts/worker_parts.h"

#include <memory>
#include <system_error>
#include <utility>

#include "absl/cleanup/cleanup.h"
#include "absl/strings/str_cat.h"
#include "common/artifacts/disk_room.h"
#include "common/artifacts/hashing_file.h"
#include "common/safetensors/header.h"
#include "common/safetensors/index.h"
#include "common/safetensors/merge.h"
#include "common/safetensors/shard_names.h"
#include "common/status_macros.h"

namespace gpipe::orchestrator {
namespace fs = std::filesystem;

absl::StatusOr<std::map<std::string, Manifest::File>> WorkerParts::Assemble(std::string_view stem,
                                                                            absl::Span<const v1::ArtifactRef> refs,
                                                                            int64_t max_bytes) {
  std::vector<Part> parts;
  int64_t bytes = 0;
  for (const v1::ArtifactRef& ref : refs) {
    GPIPE_ASSIGN_OR_RETURN(Part part, Open(ref));
    if (part.tensors.empty()) continue;
    bytes += ref.size();
    parts.push_back(std::move(part));
  }
  if (parts.size() == 1) {
    GPIPE_ASSIGN_OR_RETURN(Manifest::File whole, KeepOne(parts.front()));
    return std::map<std::string, Manifest::File>{{safetensors::WholeName(stem), std::move(whole)}};
  }
  if (bytes > max_bytes) return Keep(stem, parts);
  GPIPE_RETURN_IF_ERROR(CheckRoom(store_.folder(), bytes));
  GPIPE_ASSIGN_OR_RETURN(Manifest::File whole, Join(parts));
  return std::map<std::string, Manifest::File>{{safetensors::WholeName(stem), std::move(whole)}};
}

absl::StatusOr<WorkerParts::Part> WorkerParts::Open(const v1::ArtifactRef& ref) const {
  Part part{.ref = ref, .path = folder_ / ref.sha256(), .tensors = {}};
  std::error_code error;
  const bool left = IsSha256(ref.sha256()) && fs::exists(part.path, error);
  if (!left) {
    GPIPE_ASSIGN_OR_RETURN(part.path, store_.Path(ref));
  } else if (static_cast<int64_t>(fs::file_size(part.path, error)) != ref.size()) {
    return absl::DataLossError(absl::StrCat("the part ", part.path.string(), " has not ", ref.size(), " bytes"));
  }
  GPIPE_ASSIGN_OR_RETURN(const safetensors::Header header, safetensors::ReadHeader(part.path));
  for (const auto& [name, info] : header.tensors) {
    part.tensors.push_back(name);
    part.data_bytes += info.end - info.begin;
  }
  return part;
}

absl::StatusOr<Manifest::File> WorkerParts::KeepOne(const Part& part) {
  // Two parts with the same content are told of as two with the same names, so that this one is still there.
  if (part.path.parent_path() == folder_) GPIPE_RETURN_IF_ERROR(store_.Adopt(part.path, part.ref));
  return Manifest::File{.ref = part.ref, .tensors = static_cast<int64_t>(part.tensors.size())};
}

absl::StatusOr<std::map<std::string, Manifest::File>> WorkerParts::Keep(std::string_view stem,
                                                                        const std::vector<Part>& parts) {
  safetensors::WeightMap file_of;
  uint64_t bytes = 0;
  for (size_t i = 0; i < parts.size(); ++i) {
    bytes += parts[i].data_bytes;
    for (const std::string& name : parts[i].tensors) {
      if (file_of.emplace(name, safetensors::ShardName(stem, i + 1, parts.size())).second) continue;
      return absl::InvalidArgumentError(absl::StrCat("tensor '", name, "' is in two of the parts"));
    }
  }
  std::map<std::string, Manifest::File> files;
  for (size_t i = 0; i < parts.size(); ++i) {
    GPIPE_ASSIGN_OR_RETURN(files[safetensors::ShardName(stem, i + 1, parts.size())], KeepOne(parts[i]));
  }
  Manifest::File& index = files[safetensors::IndexName(stem)];
  index.tensors = static_cast<int64_t>(file_of.size());
  GPIPE_ASSIGN_OR_RETURN(index.ref, store_.Put(safetensors::BuildIndex(file_of, bytes)));
  return files;
}

// Without any parts, too: a checkpoint has an optimizer's file even if the optimizer has no state (plain SGD).
absl::StatusOr<Manifest::File> WorkerParts::Join(const std::vector<Part>& parts) {
  const fs::path output = store_.TemporaryPath();
  const auto remover = absl::MakeCleanup([&output] {
    std::error_code ignored;
    fs::remove(output, ignored);  // Gone already when it was adopted.
  });
  std::vector<fs::path> paths;
  Manifest::File whole;
  for (const Part& part : parts) {
    paths.push_back(part.path);
    whole.tensors += static_cast<int64_t>(part.tensors.size());
  }
  GPIPE_ASSIGN_OR_RETURN(const std::unique_ptr<HashingFile> file,
                         HashingFile::Create(output, HashingFile::Flush::kEarly));
  GPIPE_RETURN_IF_ERROR(safetensors::Merge(paths, [&file](std::string_view bytes) { return file->Append(bytes); }));
  GPIPE_ASSIGN_OR_RETURN(whole.ref, file->Finish());
  GPIPE_RETURN_IF_ERROR(store_.Adopt(output, whole.ref));
  return whole;
}

}  // namespace gpipe::orchestrator
