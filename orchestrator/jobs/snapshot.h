#ifndef GPIPE_ORCHESTRATOR_JOBS_SNAPSHOT_H_
#define GPIPE_ORCHESTRATOR_JOBS_SNAPSHOT_H_

#include <filesystem>

#include "absl/functional/function_ref.h"
#include "absl/status/status.h"
#include "gpipe/v1/worker_session.pb.h"

namespace gpipe::orchestrator {

// Copies of the database as it is stored at one moment, made on a connection of their own beside the Store, which goes
// on writing. Any thread; errors as those of the Store.

// Writes one to `target`, a new file. RESOURCE_EXHAUSTED: there is no room for it.
absl::Status WriteSnapshot(const std::filesystem::path& database, const std::filesystem::path& target);

// Each file that its jobs have, but for shared ones, once. Ends with the first error of `visit`.
absl::Status VisitFiles(const std::filesystem::path& snapshot,
                        absl::FunctionRef<absl::Status(const v1::ArtifactRef&)> visit);

}  // namespace gpipe::orchestrator

#endif  // GPIPE_ORCHESTRATOR_JOBS_SNAPSHOT_H_
