#ifndef GPIPE_ORCHESTRATOR_JOBS_ROWS_H_
#define GPIPE_ORCHESTRATOR_JOBS_ROWS_H_

#include <cstdint>
#include <string>
#include <string_view>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "google/protobuf/message_lite.h"
#include "orchestrator/jobs/database.h"
#include "orchestrator/jobs/stored_job.h"

namespace gpipe::orchestrator {

// Between rows and messages, for the Store's units. All may throw SQLite::Exception: for use inside Database::Run.

// NOT_FOUND, with its reason.
absl::Status NoJob(std::string_view job_id);

// The row of a job. NOT_FOUND names it.
absl::StatusOr<int64_t> SequenceOf(Database& database, std::string_view job_id);

void BindBlob(Database::Query& query, int index, const google::protobuf::MessageLite& message);
// DATA_LOSS when the column does not hold such a message.
absl::Status ParseBlob(Database::Query& query, int column, google::protobuf::MessageLite& message);

// Columns `sha256, size`.
void BindRef(Database::Query& query, int index, const v1::ArtifactRef& ref);
v1::ArtifactRef RefAt(Database::Query& query, int column);

// Without its files, which have rows of their own.
#define GPIPE_CHECKPOINT_COLUMNS "step, manifest_sha256, manifest_size"
void BindCheckpoint(Database::Query& query, int index, const CheckpointFiles& files);
CheckpointFiles CheckpointAt(Database::Query& query, int column);
// The rest of the rows of `query`, columns `name, sha256, size`.
FileMap FilesAt(Database::Query& query);

// Reads the whole job. The columns of `query` are GPIPE_JOB_COLUMNS, and it stands on a row.
#define GPIPE_JOB_COLUMNS "sequence, id, request_id, fingerprint, state, spec, message, create_time_nanos"
absl::StatusOr<StoredJob> JobAt(Database& database, Database::Query& query);
// The same without its files, what it resumes from, and its results, of which there may be many.
absl::StatusOr<StoredJob> ListedJobAt(Database& database, Database::Query& query);
void ReadResults(Database& database, StoredJob& stored);

// Page size within limits: 0 is `standard`. INVALID_ARGUMENT when negative.
absl::StatusOr<int64_t> PageSize(int requested, int standard, int maximum);
// The position a page token stands for; `start` for the first page. INVALID_ARGUMENT when no list gave it.
absl::StatusOr<int64_t> PagePosition(std::string_view token, int64_t start);

}  // namespace gpipe::orchestrator

#endif  // GPIPE_ORCHESTRATOR_JOBS_ROWS_H_
