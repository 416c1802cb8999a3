#ifndef GPIPE_WORKER_ENGINE_ATTEMPT_FILES_H_
#define GPIPE_WORKER_ENGINE_ATTEMPT_FILES_H_

#include <filesystem>
#include <string>

#include "absl/status/statusor.h"
#include "gpipe/v1/worker_session.pb.h"
#include "worker/checkpoint/ranged_file.h"
#include "worker/checkpoint/resume.h"
#include "worker/checkpoint/shard_writer.h"
#include "worker/data/file_cache.h"
#include "worker/data/range_cache.h"
#include "worker/data/shared_files.h"
#include "worker/engine/attempt_control.h"

namespace gpipe::worker {

// The files of one attempt: those that its spec names, and its checkpoints. An abort of the attempt ends every reading.
// Used by the engine's thread.
class AttemptFiles {
 public:
  struct Sources {
    FileCache& cache;
    RangeCache& ranges;
    SharedFiles shared;
  };

  // The sources' caches, the assignment and the control must outlive it, and what it opens.
  AttemptFiles(Sources sources, const v1::Assignment& assignment, AttemptControl& control)
      : sources_(sources), assignment_(assignment), control_(control) {}

  // Compares shared files with what was checked when the job was submitted. All of them, also those that only other
  // workers read: a folder that is not the same everywhere is a mistake.
  absl::Status CheckShared() const;

  // NOT_FOUND: the assignment does not say where that is.
  absl::StatusOr<v1::ArtifactRef> RefOf(const std::string& path_in_spec) const;
  // Fetches the whole file.
  absl::StatusOr<std::filesystem::path> LocalPath(const std::string& path_in_spec);
  // To be read as it is used.
  absl::StatusOr<RangedFile> OpenRanges(const std::string& path_in_spec);
  absl::StatusOr<CheckpointTensors> OpenCheckpoint(const Refs& refs);

  // Of this worker, in this folder; empty without one.
  std::filesystem::path TraceFile(const std::filesystem::path& folder) const;

 private:
  RangedFile RangesOf(const v1::ArtifactRef& ref);

  const Sources sources_;
  const v1::Assignment& assignment_;
  AttemptControl& control_;
};

}  // namespace gpipe::worker

#endif  // GPIPE_WORKER_ENGINE_ATTEMPT_FILES_H_
