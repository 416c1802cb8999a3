#ifndef GPIPE_ORCHESTRATOR_JOBS_REMOVAL_H_
#define GPIPE_ORCHESTRATOR_JOBS_REMOVAL_H_

#include <cstdint>
#include <string>
#include <vector>

#include "orchestrator/jobs/database.h"
#include "orchestrator/jobs/store.h"

namespace gpipe::orchestrator {

// Rows of checkpoints going, for the Store's units. All may throw SQLite::Exception: for use inside Database::Run.

// `checkpoints/20/`: what the paths of that checkpoint's results begin with.
std::string CheckpointFolder(int64_t step);

// The checkpoint of that step, if there is one, with its files and results; what it had is added to `dropped`.
void DropCheckpoint(Database& database, int64_t job, int64_t step, std::vector<Store::Dropped>& dropped);

// All but the `keep` with the most steps.
void DropOlderCheckpoints(Database& database, int64_t job, int64_t keep, std::vector<Store::Dropped>& dropped);

}  // namespace gpipe::orchestrator

#endif  // GPIPE_ORCHESTRATOR_JOBS_REMOVAL_H_
