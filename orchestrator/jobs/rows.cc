#include "orchestrator/jobs/rows.h"

#include <algorithm>

#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "common/error_reason.h"
#include "common/field_error.h"
#include "common/status_macros.h"
#include "common/string_view.h"
#include "google/protobuf/util/time_util.h"

namespace gpipe::orchestrator {
namespace {

using google::protobuf::util::TimeUtil;

void ReadFiles(Database& database, StoredJob& stored) {
  auto query = database.Prepare("SELECT path, sha256, size FROM job_files WHERE job = ?1");
  query.Bind(stored.sequence);
  stored.files = FilesAt(query);
}

void ReadResume(Database& database, StoredJob& stored) {
  auto query = database.Prepare("SELECT " GPIPE_CHECKPOINT_COLUMNS " FROM resumes WHERE job = ?1");
  query.Bind(stored.sequence);
  if (!query->executeStep()) return;
  stored.resume = CheckpointAt(query, 0);
  auto files = database.Prepare("SELECT name, sha256, size FROM resume_files WHERE job = ?1");
  files.Bind(stored.sequence);
  stored.resume->files = FilesAt(files);
}

void ReadCheckpointStep(Database& database, StoredJob& stored) {
  auto query = database.Prepare("SELECT COALESCE(MAX(step), 0) FROM checkpoints WHERE job = ?1");
  query.Bind(stored.sequence);
  if (query->executeStep()) stored.job.set_checkpoint_step(query->getColumn(0).getInt64());
}

absl::StatusOr<StoredJob> RowAt(Database::Query& query) {
  StoredJob stored;
  GPIPE_RETURN_IF_ERROR(ParseBlob(query, 6, stored.job));
  GPIPE_RETURN_IF_ERROR(ParseBlob(query, 5, *stored.job.mutable_spec()));
  stored.sequence = query->getColumn(0).getInt64();
  stored.job.set_id(query->getColumn(1).getString());
  stored.request_id = query->getColumn(2).getString();  // Empty for NULL.
  stored.fingerprint = query->getColumn(3).getString();
  stored.job.set_state(static_cast<v1::Job::State>(query->getColumn(4).getInt()));
  *stored.job.mutable_create_time() = TimeUtil::NanosecondsToTimestamp(query->getColumn(7).getInt64());
  return stored;
}

}  // namespace

absl::Status NoJob(std::string_view job_id) {
  return WithReason(absl::NotFoundError(absl::StrCat("no job '", AbslView(job_id), "'")), reason::kJobNotFound);
}

absl::StatusOr<int64_t> SequenceOf(Database& database, std::string_view job_id) {
  auto query = database.Prepare("SELECT sequence FROM jobs WHERE id = ?1");
  query.Bind(job_id);
  if (!query->executeStep()) return NoJob(job_id);
  return query->getColumn(0).getInt64();
}

void BindBlob(Database::Query& query, int index, const google::protobuf::MessageLite& message) {
  std::string bytes = message.SerializeAsString();
  query->bind(index, bytes.data(), static_cast<int>(bytes.size()));
}

absl::Status ParseBlob(Database::Query& query, int column, google::protobuf::MessageLite& message) {
  SQLite::Column value = query->getColumn(column);
  if (message.ParseFromArray(value.getBlob(), value.getBytes())) return absl::OkStatus();
  return absl::DataLossError(absl::StrCat("the database holds a damaged ", message.GetTypeName()));
}

void BindRef(Database::Query& query, int index, const v1::ArtifactRef& ref) {
  query->bind(index, ref.sha256());
  query->bind(index + 1, ref.size());
}

v1::ArtifactRef RefAt(Database::Query& query, int column) {
  v1::ArtifactRef ref;
  ref.set_sha256(query->getColumn(column).getString());
  ref.set_size(query->getColumn(column + 1).getInt64());
  return ref;
}

void BindCheckpoint(Database::Query& query, int index, const CheckpointFiles& files) {
  query->bind(index, files.step);
  BindRef(query, index + 1, files.manifest);
}

CheckpointFiles CheckpointAt(Database::Query& query, int column) {
  return CheckpointFiles{
      .step = query->getColumn(column).getInt64(), .manifest = RefAt(query, column + 1), .files = {}};
}

FileMap FilesAt(Database::Query& query) {
  FileMap files;
  while (query->executeStep()) files[query->getColumn(0).getString()] = RefAt(query, 1);
  return files;
}

absl::StatusOr<StoredJob> ListedJobAt(Database& database, Database::Query& query) {
  GPIPE_ASSIGN_OR_RETURN(StoredJob stored, RowAt(query));
  ReadCheckpointStep(database, stored);
  return stored;
}

absl::StatusOr<StoredJob> JobAt(Database& database, Database::Query& query) {
  GPIPE_ASSIGN_OR_RETURN(StoredJob stored, ListedJobAt(database, query));
  ReadFiles(database, stored);
  ReadResume(database, stored);
  ReadResults(database, stored);
  return stored;
}

void ReadResults(Database& database, StoredJob& stored) {
  auto query = database.Prepare("SELECT path, sha256, size FROM results WHERE job = ?1 ORDER BY path");
  query.Bind(stored.sequence);
  while (query->executeStep()) {
    v1::ResultFile& result = *stored.job.add_results();
    result.set_path(query->getColumn(0).getString());
    *result.mutable_artifact() = RefAt(query, 1);
  }
}

absl::StatusOr<int64_t> PageSize(int requested, int standard, int maximum) {
  if (requested < 0) return FieldError("page_size", absl::StrCat("must not be negative, is ", requested));
  return requested == 0 ? standard : std::min(requested, maximum);
}

absl::StatusOr<int64_t> PagePosition(std::string_view token, int64_t start) {
  if (token.empty()) return start;
  int64_t position = 0;
  if (absl::SimpleAtoi(AbslView(token), &position) && position >= 0) return position;
  return FieldError("page_token", "is not one that an earlier page gave");
}

}  // namespace gpipe::orchestrator
