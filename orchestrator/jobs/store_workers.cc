// The Store's part that keeps what is to be known of workers that come and go.

#include "orchestrator/jobs/database.h"
#include "orchestrator/jobs/store.h"

namespace gpipe::orchestrator {

absl::Status Store::AddDrained(std::string_view worker, std::string_view reason) {
  return database_->RunAtomically("storing a drained worker", [&] {
    database_->Prepare("INSERT OR REPLACE INTO drained_workers VALUES (?1, ?2)").Bind(worker, reason)->exec();
    return absl::OkStatus();
  });
}

absl::Status Store::RemoveDrained(std::string_view worker) {
  return database_->RunAtomically("forgetting a drained worker", [&] {
    database_->Prepare("DELETE FROM drained_workers WHERE name = ?1").Bind(worker)->exec();
    return absl::OkStatus();
  });
}

absl::StatusOr<std::map<std::string, std::string>> Store::DrainedWorkers() {
  std::map<std::string, std::string> drained;
  const absl::Status read = database_->Run("reading drained workers", [&] {
    auto query = database_->Prepare("SELECT name, reason FROM drained_workers");
    while (query->executeStep()) drained[query->getColumn(0).getString()] = query->getColumn(1).getString();
    return absl::OkStatus();
  });
  if (!read.ok()) return read;
  return drained;
}

}  // namespace gpipe::orchestrator
