#include "orchestrator/artifacts/checkpoint_assembler.h"

#include <filesystem>
#include <system_error>
#include <utility>
#include <vector>

#include "absl/cleanup/cleanup.h"
#include "absl/strings/str_cat.h"
#include "common/field_error.h"
#include "common/file.h"
#include "common/safetensors/header.h"
#include "common/status_macros.h"
#include "common/string_view.h"

namespace gpipe::orchestrator {
namespace {

constexpr int64_t kMaxManifestBytes = 1 << 20;

struct Merged {
  v1::ArtifactRef ref;
  int64_t tensors = 0;
};

absl::Status MergeFiles(const std::vector<std::filesystem::path>& parts, const std::filesystem::path& output) {
  if (!parts.empty()) return safetensors::Merge(parts, output);
  // An optimizer without state (plain SGD) makes no shards, but a checkpoint has its file all the same.
  std::vector<std::pair<std::string, safetensors::TensorInfo>> none;
  return WriteFileAtomically(output, safetensors::BuildHeader(none));
}

absl::StatusOr<Merged> Merge(ArtifactStore& store, absl::Span<const v1::ArtifactRef> parts) {
  std::vector<std::filesystem::path> paths;
  for (const v1::ArtifactRef& part : parts) {
    GPIPE_ASSIGN_OR_RETURN(paths.emplace_back(), store.Path(part));
  }
  std::filesystem::path output = store.TemporaryPath();
  auto remover = absl::MakeCleanup([&output] {
    std::error_code ignored;
    std::filesystem::remove(output, ignored);  // Gone already when it was adopted.
  });
  GPIPE_RETURN_IF_ERROR(MergeFiles(paths, output));
  GPIPE_ASSIGN_OR_RETURN(safetensors::Header header, safetensors::ReadHeader(output));
  GPIPE_ASSIGN_OR_RETURN(v1::ArtifactRef ref, store.Adopt(output));
  return Merged{.ref = std::move(ref), .tensors = static_cast<int64_t>(header.tensors.size())};
}

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

// The file must be the one that the manifest means, and hold what it says.
absl::Status CheckFile(const ArtifactStore& store, std::string_view field, const v1::ArtifactRef& ref,
                       const v1::ArtifactRef& expected, int64_t tensors) {
  if (ref.sha256() != expected.sha256() || ref.size() != expected.size()) {
    return FieldError(
        field, absl::StrCat("is not the file that the manifest was written for: ", ref.size(), " bytes with sha256 ",
                            ref.sha256(), " instead of ", expected.size(), " bytes with ", expected.sha256()));
  }
  GPIPE_ASSIGN_OR_RETURN(std::filesystem::path path, store.Path(ref));
  absl::StatusOr<safetensors::Header> header = safetensors::ReadHeader(path);
  if (!header.ok()) return FieldError(field, StdView(header.status().message()));
  if (static_cast<int64_t>(header->tensors.size()) == tensors) return absl::OkStatus();
  return FieldError(field, absl::StrCat("holds ", header->tensors.size(), " tensors, the manifest says ", tensors));
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

v1::ArtifactRef FileNamed(const v1::ResumeFiles& files, const std::string& name) {
  const auto found = files.files().find(name);
  return found == files.files().end() ? v1::ArtifactRef() : found->second;
}

// Digests that cannot be one are the request's fault, by field.
absl::Status CheckRefs(const v1::ResumeFiles& files) {
  FieldErrors errors;
  auto check = [&errors](std::string_view field, const v1::ArtifactRef& ref) {
    if (!IsSha256(ref.sha256())) errors.Add(field, "needs the sha256 of an uploaded file");
  };
  check("resume_files.manifest", files.manifest());
  check("resume_files.model", FileNamed(files, "model.safetensors"));
  check("resume_files.optimizer", FileNamed(files, "optimizer.safetensors"));
  return errors.ToStatus();
}

}  // namespace

absl::StatusOr<CheckpointFiles> AssembleCheckpoint(ArtifactStore& store, std::string_view job_id,
                                                   absl::Span<const v1::CheckpointShard> shards) {
  GPIPE_RETURN_IF_ERROR(CheckShards(shards));
  std::vector<v1::ArtifactRef> models;
  std::vector<v1::ArtifactRef> optimizers;
  for (const v1::CheckpointShard& shard : shards) {
    models.insert(models.end(), shard.model().begin(), shard.model().end());
    optimizers.insert(optimizers.end(), shard.optimizer().begin(), shard.optimizer().end());
  }
  GPIPE_ASSIGN_OR_RETURN(Merged model, Merge(store, models));
  GPIPE_ASSIGN_OR_RETURN(Merged optimizer, Merge(store, optimizers));

  CheckpointFiles files{.step = shards.front().step(), .manifest = {}, .model = model.ref, .optimizer = optimizer.ref};
  Manifest manifest{.job = std::string(job_id),
                    .step = files.step,
                    .model = model.ref,
                    .optimizer = optimizer.ref,
                    .model_tensors = model.tensors,
                    .optimizer_tensors = optimizer.tensors};
  GPIPE_ASSIGN_OR_RETURN(files.manifest, store.Put(WriteManifest(manifest)));
  return files;
}

absl::StatusOr<v1::ArtifactRef> MergeModel(ArtifactStore& store, absl::Span<const v1::ArtifactRef> parts) {
  GPIPE_ASSIGN_OR_RETURN(Merged merged, Merge(store, parts));
  return merged.ref;
}

absl::StatusOr<CheckpointFiles> CheckResumeFiles(const ArtifactStore& store, const v1::ResumeFiles& files) {
  GPIPE_RETURN_IF_ERROR(CheckRefs(files));
  GPIPE_ASSIGN_OR_RETURN(Manifest manifest, FetchManifest(store, files.manifest()));
  const v1::ArtifactRef model = FileNamed(files, "model.safetensors");
  const v1::ArtifactRef optimizer = FileNamed(files, "optimizer.safetensors");
  GPIPE_RETURN_IF_ERROR(CheckFile(store, "resume_files.model", model, manifest.model, manifest.model_tensors));
  GPIPE_RETURN_IF_ERROR(
      CheckFile(store, "resume_files.optimizer", optimizer, manifest.optimizer, manifest.optimizer_tensors));
  return CheckpointFiles{
      .step = manifest.step, .manifest = files.manifest(), .model = model, .optimizer = optimizer};
}

}  // namespace gpipe::orchestrator
