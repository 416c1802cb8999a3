#include "worker/engine/attempt_files.h"

#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "common/status_macros.h"

namespace gpipe::worker {

absl::Status AttemptFiles::CheckShared() const {
  for (const auto& [path, ref] : assignment_.files()) {
    if (!ref.shared_path().empty()) GPIPE_RETURN_IF_ERROR(sources_.shared.Check(ref));
  }
  return absl::OkStatus();
}

std::filesystem::path AttemptFiles::TraceFile(const std::filesystem::path& folder) const {
  if (folder.empty()) return {};
  const v1::AttemptId& id = assignment_.attempt();
  const std::string& name = assignment_.peers(assignment_.worker_index()).name();
  return folder / absl::StrCat(id.job(), "-", id.attempt(), "-", name, ".json");
}

absl::StatusOr<v1::ArtifactRef> AttemptFiles::RefOf(const std::string& path_in_spec) const {
  auto ref = assignment_.files().find(path_in_spec);
  if (ref == assignment_.files().end()) {
    return absl::NotFoundError(absl::StrCat("the assignment does not say where ", path_in_spec, " is"));
  }
  return ref->second;
}

absl::StatusOr<RangedFile> AttemptFiles::OpenRanges(const std::string& path_in_spec) {
  GPIPE_ASSIGN_OR_RETURN(const v1::ArtifactRef ref, RefOf(path_in_spec));
  return RangesOf(ref);
}

RangedFile AttemptFiles::RangesOf(const v1::ArtifactRef& ref) {
  return RangedFile{static_cast<uint64_t>(ref.size()),
                    [this, ref](uint64_t offset, absl::Span<char> data) -> absl::Status {
                      GPIPE_RETURN_IF_ERROR(control_.status());  // Loading takes long, and may be in vain.
                      return sources_.ranges.Read(ref, static_cast<int64_t>(offset), data);
                    }};
}

absl::StatusOr<CheckpointTensors> AttemptFiles::OpenCheckpoint(const Refs& refs) {
  std::vector<RangedFile> files;
  for (const v1::ArtifactRef& ref : refs) files.push_back(RangesOf(ref));
  return CheckpointTensors::Open(std::move(files));
}

absl::StatusOr<std::filesystem::path> AttemptFiles::LocalPath(const std::string& path_in_spec) {
  GPIPE_ASSIGN_OR_RETURN(const v1::ArtifactRef ref, RefOf(path_in_spec));
  return sources_.cache.Fetch(ref);
}

}  // namespace gpipe::worker
