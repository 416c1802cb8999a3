#include "orchestrator/artifacts/checkpoint_assembler.h"

#include <filesystem>
#include <map>
#include <string>
#include <system_error>
#include <utility>
#include <vector>

#include "absl/cleanup/cleanup.h"
#include "absl/strings/str_cat.h"
#include "common/artifacts/parts.h"
#include "common/field_error.h"
#include "common/file.h"
#include "common/safetensors/header.h"
#include "common/safetensors/index.h"
#include "common/status_macros.h"
#include "common/string_view.h"
#include "orchestrator/artifacts/manifest.h"
#include "orchestrator/artifacts/worker_parts.h"

namespace gpipe::orchestrator {
namespace {

constexpr int64_t kMaxManifestBytes = 1 << 20;

absl::Status CheckShards(absl::Span<const v1::CheckpointShard> shards) {
  if (shards.empty()) return absl::InvalidArgumentError("a checkpoint needs a shard");
  for (const v1::CheckpointShard& shard : shards) {
    if (shard.step() != shards.front().step()) {
      return absl::InvalidArgumentError(
          absl::StrCat("shards of different steps: ", shards.front().step(), " and ", shard.step()));
    }
  }
  return absl::OkStatus();
}

FileMap RefsOf(const std::map<std::string, Manifest::File>& files) {
  FileMap refs;
  for (const auto& [name, file] : files) refs[name] = file.ref;
  return refs;
}

void RemoveFolder(const std::filesystem::path& folder) {
  std::error_code ignored;  // As RemoveParts promises.
  std::filesystem::remove_all(folder, ignored);
}

std::string FieldOf(const std::string& name) { return absl::StrCat("resume_files.files[", name, "]"); }

absl::StatusOr<int64_t> CountTensors(const std::string& name, const std::filesystem::path& path) {
  if (safetensors::IsIndex(name)) {
    GPIPE_ASSIGN_OR_RETURN(const safetensors::WeightMap index, safetensors::ReadIndex(path, name));
    return static_cast<int64_t>(index.size());
  }
  GPIPE_ASSIGN_OR_RETURN(const safetensors::Header header, safetensors::ReadHeader(path));
  return static_cast<int64_t>(header.tensors.size());
}

// The file must be the one that the manifest means, and hold what it says.
absl::Status CheckFile(const ArtifactStore& store, const std::string& name, const v1::ArtifactRef& ref,
                       const Manifest::File& expected) {
  const std::string field = FieldOf(name);
  if (ref.sha256() != expected.ref.sha256() || ref.size() != expected.ref.size()) {
    return FieldError(
        field, absl::StrCat("is not the file that the manifest was written for: ", ref.size(), " bytes with sha256 ",
                            ref.sha256(), " instead of ", expected.ref.size(), " bytes with ", expected.ref.sha256()));
  }
  GPIPE_ASSIGN_OR_RETURN(std::filesystem::path path, store.Path(ref));
  const absl::StatusOr<int64_t> tensors = CountTensors(name, path);
  if (!tensors.ok()) return FieldError(field, StdView(tensors.status().message()));
  if (*tensors == expected.tensors) return absl::OkStatus();
  return FieldError(field, absl::StrCat("holds ", *tensors, " tensors, the manifest says ", expected.tensors));
}

absl::StatusOr<Manifest> FetchManifest(const ArtifactStore& store, const v1::ArtifactRef& ref) {
  constexpr std::string_view kField = "resume_files.manifest";
  if (ref.size() > kMaxManifestBytes)
    return FieldError(kField, absl::StrCat("has ", ref.size(), " bytes: no manifest"));
  GPIPE_ASSIGN_OR_RETURN(std::filesystem::path path, store.Path(ref));
  GPIPE_ASSIGN_OR_RETURN(std::string bytes, ReadFile(path));
  absl::StatusOr<Manifest> manifest = ReadManifest(bytes);
  if (!manifest.ok()) return FieldError(kField, StdView(manifest.status().message()));
  return manifest;
}

// Digests that cannot be one are the request's fault, by field.
absl::Status CheckRefs(const v1::ResumeFiles& files) {
  FieldErrors errors;
  auto check = [&errors](std::string_view field, const v1::ArtifactRef& ref) {
    if (!IsSha256(ref.sha256())) errors.Add(field, "needs the sha256 of an uploaded file");
  };
  check("resume_files.manifest", files.manifest());
  for (const auto& [name, ref] : files.files()) check(FieldOf(name), ref);
  return errors.ToStatus();
}

// Those that the manifest names, and no others.
absl::Status CheckNames(const v1::ResumeFiles& files, const Manifest& manifest) {
  FieldErrors errors;
  for (const auto& [name, file] : manifest.files) {
    if (!files.files().contains(name)) errors.Add(FieldOf(name), "is missing: the manifest names it");
  }
  for (const auto& [name, ref] : files.files()) {
    if (!manifest.files.contains(name)) errors.Add(FieldOf(name), "is not among the files that the manifest names");
  }
  return errors.ToStatus();
}

}  // namespace

absl::StatusOr<CheckpointFiles> AssembleCheckpoint(ArtifactStore& store, const v1::AttemptId& attempt,
                                                   absl::Span<const v1::CheckpointShard> shards,
                                                   int64_t max_shard_bytes) {
  GPIPE_RETURN_IF_ERROR(CheckShards(shards));
  std::vector<v1::ArtifactRef> models;
  std::vector<v1::ArtifactRef> optimizers;
  for (const v1::CheckpointShard& shard : shards) {
    models.insert(models.end(), shard.model().begin(), shard.model().end());
    optimizers.insert(optimizers.end(), shard.optimizer().begin(), shard.optimizer().end());
  }
  Manifest manifest{.job = attempt.job(), .step = shards.front().step(), .files = {}};
  const std::filesystem::path folder = PartFolder(store.folder(), MakePartOf(attempt, manifest.step));
  const auto remover = absl::MakeCleanup([&folder] { RemoveFolder(folder); });
  WorkerParts parts(store, folder);
  GPIPE_ASSIGN_OR_RETURN(manifest.files, parts.Assemble(kModelStem, models, max_shard_bytes));
  GPIPE_ASSIGN_OR_RETURN(auto optimizer, parts.Assemble(kOptimizerStem, optimizers, max_shard_bytes));
  manifest.files.merge(optimizer);

  CheckpointFiles files{.step = manifest.step, .manifest = {}, .files = RefsOf(manifest.files)};
  GPIPE_ASSIGN_OR_RETURN(files.manifest, store.Put(WriteManifest(manifest)));
  return files;
}

absl::StatusOr<FileMap> AssembleModel(ArtifactStore& store, const v1::AttemptId& attempt,
                                      absl::Span<const v1::ArtifactRef> parts, int64_t max_shard_bytes) {
  const std::filesystem::path folder = PartFolder(store.folder(), MakePartOf(attempt));
  const auto remover = absl::MakeCleanup([&folder] { RemoveFolder(folder); });
  WorkerParts found(store, folder);
  GPIPE_ASSIGN_OR_RETURN(const auto files, found.Assemble(kModelStem, parts, max_shard_bytes));
  return RefsOf(files);
}

void RemoveParts(const ArtifactStore& store, const v1::AttemptId& attempt) {
  RemoveFolder(PartsFolder(store.folder(), attempt));
}

absl::StatusOr<CheckpointFiles> CheckResumeFiles(const ArtifactStore& store, const v1::ResumeFiles& files) {
  GPIPE_RETURN_IF_ERROR(CheckRefs(files));
  GPIPE_ASSIGN_OR_RETURN(Manifest manifest, FetchManifest(store, files.manifest()));
  GPIPE_RETURN_IF_ERROR(CheckNames(files, manifest));
  for (const auto& [name, file] : manifest.files) {
    GPIPE_RETURN_IF_ERROR(CheckFile(store, name, files.files().at(name), file));
  }
  return CheckpointFiles{.step = manifest.step, .manifest = files.manifest(), .files = RefsOf(manifest.files)};
}

}  // namespace gpipe::orchestrator
