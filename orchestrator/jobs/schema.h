#ifndef GPIPE_ORCHESTRATOR_JOBS_SCHEMA_H_
#define GPIPE_ORCHESTRATOR_JOBS_SCHEMA_H_

#include "SQLiteCpp/SQLiteCpp.h"
#include "absl/status/status.h"

namespace gpipe::orchestrator {

// The version this program writes: PRAGMA user_version of an up-to-date database.
int SchemaVersion();

// Brings the database from its version to `version`, an older one being for tests, each step in a transaction of its
// own, so that a crash between two leaves a database that the next start goes on with. FAILED_PRECONDITION, and nothing
// is touched, when the database is newer. Throws SQLite::Exception: for use inside Database::Run.
absl::Status Migrate(SQLite::Database& connection, int version = SchemaVersion());

}  // namespace gpipe::orchestrator

#endif  // GPIPE_ORCHESTRATOR_JOBS_SCHEMA_H_
