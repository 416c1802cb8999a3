// The Store's part that forgets: checkpoints, jobs, and what tells which files go with them.

#include "orchestrator/jobs/removal.h"

#include <algorithm>

#include "absl/strings/str_cat.h"
#include "common/status_macros.h"
#include "google/protobuf/util/time_util.h"
#include "orchestrator/jobs/job_state.h"
#include "orchestrator/jobs/rows.h"

namespace gpipe::orchestrator {
namespace {

// The rest of the rows of `query`, columns `sha256, size`. A shared file has no content here.
void AppendRefs(Database::Query& query, std::vector<v1::ArtifactRef>& refs) {
  while (query->executeStep()) {
    if (v1::ArtifactRef ref = RefAt(query, 0); !ref.sha256().empty()) refs.push_back(std::move(ref));
  }
}

// Each file that the job has anywhere, once.
std::vector<v1::ArtifactRef> FilesOfJob(Database& database, int64_t job) {
  auto query = database.Prepare(
      "SELECT sha256, size FROM job_files WHERE job = ?1 UNION SELECT sha256, size FROM results WHERE job = ?1 "
      "UNION SELECT sha256, size FROM checkpoint_files WHERE job = ?1 "
      "UNION SELECT manifest_sha256, manifest_size FROM checkpoints WHERE job = ?1 "
      "UNION SELECT sha256, size FROM resume_files WHERE job = ?1 "
      "UNION SELECT manifest_sha256, manifest_size FROM resumes WHERE job = ?1");
  query.Bind(job);
  std::vector<v1::ArtifactRef> files;
  AppendRefs(query, files);
  return files;
}

bool AnyJobHas(Database& database, const std::string& sha256) {
  auto query = database.Prepare(
      "SELECT EXISTS (SELECT 1 FROM job_files WHERE sha256 = ?1) OR EXISTS (SELECT 1 FROM results WHERE sha256 = ?1) "
      "OR EXISTS (SELECT 1 FROM checkpoint_files WHERE sha256 = ?1) "
      "OR EXISTS (SELECT 1 FROM checkpoints WHERE manifest_sha256 = ?1) "
      "OR EXISTS (SELECT 1 FROM resume_files WHERE sha256 = ?1) "
      "OR EXISTS (SELECT 1 FROM resumes WHERE manifest_sha256 = ?1)");
  query.Bind(sha256);
  query->executeStep();
  return query->getColumn(0).getInt() != 0;
}

}  // namespace

std::string CheckpointFolder(int64_t step) { return absl::StrCat("checkpoints/", step, "/"); }

void DropCheckpoint(Database& database, int64_t job, int64_t step, std::vector<Store::Dropped>& dropped) {
  auto checkpoint = database.Prepare(
      "SELECT manifest_sha256, manifest_size, time_nanos FROM checkpoints WHERE job = ?1 AND step = ?2");
  checkpoint.Bind(job, step);
  if (!checkpoint->executeStep()) return;
  Store::Dropped& old = dropped.emplace_back();
  old.files.push_back(RefAt(checkpoint, 0));
  old.since = absl::FromUnixNanos(checkpoint->getColumn(2).getInt64());
  auto files = database.Prepare("SELECT sha256, size FROM checkpoint_files WHERE job = ?1 AND step = ?2");
  files.Bind(job, step);
  AppendRefs(files, old.files);
  database.Prepare("DELETE FROM checkpoints WHERE job = ?1 AND step = ?2").Bind(job, step)->exec();
  const std::string folder = CheckpointFolder(step);
  database.Prepare("DELETE FROM results WHERE job = ?1 AND substr(path, 1, length(?2)) = ?2").Bind(job, folder)->exec();
}

void DropOlderCheckpoints(Database& database, int64_t job, int64_t keep, std::vector<Store::Dropped>& dropped) {
  std::vector<int64_t> steps;
  {
    auto older = database.Prepare("SELECT step FROM checkpoints WHERE job = ?1 ORDER BY step DESC LIMIT -1 OFFSET ?2");
    older.Bind(job, keep);
    while (older->executeStep()) steps.push_back(older->getColumn(0).getInt64());
  }
  for (const int64_t step : steps) DropCheckpoint(database, job, step, dropped);
}

absl::StatusOr<bool> Store::DropSomeMetrics(std::string_view id, int64_t most) {
  int dropped = 0;
  GPIPE_RETURN_IF_ERROR(database_->RunAtomically("forgetting metrics of a job", [&]() -> absl::Status {
    GPIPE_ASSIGN_OR_RETURN(int64_t job, SequenceOf(*database_, id));
    auto query = database_->Prepare(
        "DELETE FROM step_metrics WHERE job = ?1 AND step IN (SELECT step FROM step_metrics WHERE job = ?1 LIMIT ?2)");
    dropped = query.Bind(job, most)->exec();
    return absl::OkStatus();
  }));
  return dropped == most;
}

absl::StatusOr<Store::Dropped> Store::DeleteJob(std::string_view id) {
  Dropped dropped;
  GPIPE_RETURN_IF_ERROR(database_->RunAtomically("forgetting a job", [&]() -> absl::Status {
    GPIPE_ASSIGN_OR_RETURN(const StoredJob job, GetJob(id));
    dropped.files = FilesOfJob(*database_, job.sequence);
    dropped.since = absl::FromUnixNanos(google::protobuf::util::TimeUtil::TimestampToNanoseconds(job.job.end_time()));
    database_->Prepare("DELETE FROM jobs WHERE sequence = ?1").Bind(job.sequence)->exec();
    return absl::OkStatus();
  }));
  return dropped;
}

absl::StatusOr<std::vector<std::string>> Store::ExpiredJobs(absl::Time before, int64_t most, int64_t limit) {
  static_assert(v1::Job::STATE_SUCCEEDED == 5 && v1::Job::STATE_CANCELLED == 7, "the states in the statement here");
  std::vector<std::string> ids;
  GPIPE_RETURN_IF_ERROR(database_->Run("looking for old jobs", [&] {
    auto query = database_->Prepare(
        "SELECT id FROM jobs WHERE state IN (5, 6, 7) AND (end_time_nanos < ?1 OR sequence <= (SELECT sequence FROM "
        "jobs "
        "WHERE state IN (5, 6, 7) ORDER BY sequence DESC LIMIT 1 OFFSET ?2)) ORDER BY sequence LIMIT ?3");
    query.Bind(absl::ToUnixNanos(before), most, limit);
    while (query->executeStep()) ids.push_back(query->getColumn(0).getString());
    return absl::OkStatus();
  }));
  return ids;
}

absl::StatusOr<std::vector<v1::ArtifactRef>> Store::WithoutJob(absl::Span<const v1::ArtifactRef> files) {
  std::vector<v1::ArtifactRef> without;
  GPIPE_RETURN_IF_ERROR(database_->Run("looking for the jobs of files", [&] {
    std::ranges::copy_if(files, std::back_inserter(without),
                         [&](const v1::ArtifactRef& file) { return !AnyJobHas(*database_, file.sha256()); });
    return absl::OkStatus();
  }));
  return without;
}

}  // namespace gpipe::orchestrator
