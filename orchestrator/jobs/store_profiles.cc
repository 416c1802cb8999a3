// The Store's part that remembers measurements.

#include "common/status_macros.h"
#include "orchestrator/jobs/database.h"
#include "orchestrator/jobs/rows.h"
#include "orchestrator/jobs/store.h"

namespace gpipe::orchestrator {

absl::Status Store::AddProfile(std::string_view request, std::string_view kind, const v1::Inspected& profile) {
  return database_->RunAtomically("storing a profile", [&]() -> absl::Status {
    auto insert = database_->Prepare("INSERT OR REPLACE INTO profiles (request, kind, message) VALUES (?1, ?2, ?3)");
    insert.Bind(request, kind);
    BindBlob(insert, 3, profile);
    insert->exec();
    auto forget = database_->Prepare(
        "DELETE FROM profiles WHERE sequence NOT IN (SELECT sequence FROM profiles ORDER BY sequence DESC LIMIT ?1)");
    forget.Bind(kMaxProfiles)->exec();
    return absl::OkStatus();
  });
}

absl::StatusOr<std::optional<v1::Inspected>> Store::FindProfile(std::string_view request, std::string_view kind) {
  std::optional<v1::Inspected> found;
  GPIPE_RETURN_IF_ERROR(database_->Run("looking for a profile", [&]() -> absl::Status {
    auto query = database_->Prepare("SELECT message FROM profiles WHERE request = ?1 AND kind = ?2");
    query.Bind(request, kind);
    if (!query->executeStep()) return absl::OkStatus();
    return ParseBlob(query, 0, found.emplace());
  }));
  return found;
}

}  // namespace gpipe::orchestrator
