#include "orchestrator/jobs/store.h"

#include <limits>
#include <system_error>
#include <utility>

#include "absl/strings/str_cat.h"
#include "common/field_error.h"
#include "common/file.h"
#include "common/file_lock.h"
#include "common/status_macros.h"
#include "common/string_view.h"
#include "google/protobuf/util/time_util.h"
#include "orchestrator/jobs/database.h"
#include "orchestrator/jobs/job_state.h"
#include "orchestrator/jobs/rows.h"

namespace gpipe::orchestrator {
namespace {

// The part of a job that the column `message` keeps.
v1::Job ChangingPart(const v1::Job& job) {
  v1::Job part = job;
  part.clear_id();
  part.clear_spec();
  part.clear_create_time();
  part.clear_state();
  part.clear_results();
  part.clear_checkpoint_step();
  return part;
}

void InsertRow(Database& database, const StoredJob& stored) {
  auto query = database.Prepare(
      "INSERT INTO jobs (id, request_id, fingerprint, state, spec, message, create_time_nanos) "
      "VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7)");
  query->bind(1, stored.job.id());
  if (!stored.request_id.empty()) query->bind(2, stored.request_id);
  query->bind(3, stored.fingerprint);
  query->bind(4, stored.job.state());
  BindBlob(query, 5, stored.job.spec());
  BindBlob(query, 6, ChangingPart(stored.job));
  query->bind(7, google::protobuf::util::TimeUtil::TimestampToNanoseconds(stored.job.create_time()));
  query->exec();
}

void InsertFiles(Database& database, const StoredJob& stored) {
  for (const auto& [path, ref] : stored.files) {
    auto query = database.Prepare("INSERT INTO job_files (job, path, sha256, size) VALUES (?1, ?2, ?3, ?4)");
    query.Bind(stored.sequence, path);
    BindRef(query, 3, ref);
    query->exec();
  }
}

void InsertResume(Database& database, const StoredJob& stored) {
  if (!stored.resume.has_value()) return;
  auto query = database.Prepare("INSERT INTO resumes (job, " GPIPE_CHECKPOINT_COLUMNS ") VALUES (?1, ?2, ?3, ?4)");
  query.Bind(stored.sequence);
  BindCheckpoint(query, 2, *stored.resume);
  query->exec();
  for (const auto& [name, ref] : stored.resume->files) {
    auto file = database.Prepare("INSERT INTO resume_files (job, name, sha256, size) VALUES (?1, ?2, ?3, ?4)");
    file.Bind(stored.sequence, name);
    BindRef(file, 3, ref);
    file->exec();
  }
}

absl::StatusOr<v1::Job::State> StateOf(Database& database, std::string_view id) {
  auto query = database.Prepare("SELECT state FROM jobs WHERE id = ?1");
  query.Bind(id);
  if (!query->executeStep()) return NoJob(id);
  return static_cast<v1::Job::State>(query->getColumn(0).getInt());
}

absl::StatusOr<std::vector<StoredJob>> AllJobs(Database& database, const char* sql) {
  std::vector<StoredJob> jobs;
  GPIPE_RETURN_IF_ERROR(database.Run("reading jobs", [&] {
    auto query = database.Prepare(sql);
    while (query->executeStep()) {
      GPIPE_ASSIGN_OR_RETURN(StoredJob stored, JobAt(database, query));
      jobs.push_back(std::move(stored));
    }
    return absl::OkStatus();
  }));
  return jobs;
}

// One bit per state, so that one statement serves every choice of states; 0 is all.
absl::StatusOr<int64_t> MaskOf(absl::Span<const v1::Job::State> states) {
  int64_t mask = 0;
  for (v1::Job::State state : states) {
    // A request may hold any number here.
    if (!v1::Job::State_IsValid(state)) return FieldError("states", absl::StrCat("there is no state ", state));
    mask |= int64_t{1} << state;
  }
  return mask;
}

}  // namespace

Store::Store(std::unique_ptr<FileLock> lock, std::unique_ptr<Database> database)
    : lock_(std::move(lock)), database_(std::move(database)) {}

Store::~Store() = default;

absl::StatusOr<std::unique_ptr<Store>> Store::Open(const std::filesystem::path& state_dir) {
  std::error_code error;
  std::filesystem::create_directories(state_dir, error);
  if (error) return ErrnoStatus(error.value(), "cannot create the state folder", state_dir);
  GPIPE_ASSIGN_OR_RETURN(std::unique_ptr<FileLock> lock, FileLock::Acquire(state_dir / "lock"));
  GPIPE_ASSIGN_OR_RETURN(std::unique_ptr<Database> database, Database::Open(state_dir / kDatabaseFile));
  return std::unique_ptr<Store>(new Store(std::move(lock), std::move(database)));
}

Store::Batch::Batch(Batch&& other) noexcept : store_(std::exchange(other.store_, nullptr)) {}

Store::Batch::~Batch() {
  if (store_ != nullptr) store_->database_->RollbackTransaction();
}

absl::Status Store::Batch::Commit() {
  if (store_ == nullptr) return absl::FailedPreconditionError("the batch is over");
  return std::exchange(store_, nullptr)->database_->CommitTransaction();
}

absl::StatusOr<Store::Batch> Store::Begin() {
  if (database_->in_transaction()) return absl::FailedPreconditionError("another batch is open");
  GPIPE_RETURN_IF_ERROR(database_->BeginTransaction());
  return Batch(this);
}

absl::Status Store::FoldLog() {
  if (database_->in_transaction()) return absl::FailedPreconditionError("a batch is open");
  return database_->Run("folding the log", [&] {
    database_->Prepare("PRAGMA wal_checkpoint(TRUNCATE)")->executeStep();
    return absl::OkStatus();
  });
}

absl::StatusOr<Store::Inserted> Store::InsertJob(const StoredJob& job) {
  GPIPE_ASSIGN_OR_RETURN(std::optional<StoredJob> known, FindRequest(job.request_id));
  if (known.has_value()) {
    if (known->fingerprint == job.fingerprint) return Inserted{.job = *std::move(known), .created = false};
    return absl::AlreadyExistsError(
        absl::StrCat("request_id '", job.request_id, "' was used for another request, job ", known->job.id()));
  }
  StoredJob stored = job;
  GPIPE_RETURN_IF_ERROR(database_->RunAtomically("storing a job", [&]() -> absl::Status {
    if (SequenceOf(*database_, job.job.id()).ok()) {
      return absl::AbortedError(absl::StrCat("the id ", job.job.id(), " is taken"));
    }
    InsertRow(*database_, stored);
    stored.sequence = database_->LastInsertRowid();
    InsertFiles(*database_, stored);
    InsertResume(*database_, stored);
    return absl::OkStatus();
  }));
  return Inserted{.job = std::move(stored), .created = true};
}

absl::Status Store::UpdateJob(const v1::Job& job) {
  return database_->RunAtomically("updating a job", [&]() -> absl::Status {
    GPIPE_ASSIGN_OR_RETURN(v1::Job::State stored, StateOf(*database_, job.id()));
    if (IsTerminal(stored) && stored != job.state()) {
      return absl::FailedPreconditionError(absl::StrCat("job ", job.id(), " is ", AbslView(StateName(stored)),
                                                        " for good, and cannot be ", AbslView(StateName(job.state()))));
    }
    auto query = database_->Prepare("UPDATE jobs SET state = ?2, end_time_nanos = ?3, message = ?4 WHERE id = ?1");
    query.Bind(job.id(), job.state(), google::protobuf::util::TimeUtil::TimestampToNanoseconds(job.end_time()));
    BindBlob(query, 4, ChangingPart(job));
    query->exec();
    return absl::OkStatus();
  });
}

absl::StatusOr<StoredJob> Store::GetJob(std::string_view id) {
  StoredJob stored;
  GPIPE_RETURN_IF_ERROR(database_->Run("reading a job", [&]() -> absl::Status {
    auto query = database_->Prepare("SELECT " GPIPE_JOB_COLUMNS " FROM jobs WHERE id = ?1");
    query.Bind(id);
    if (!query->executeStep()) return NoJob(id);
    GPIPE_ASSIGN_OR_RETURN(stored, JobAt(*database_, query));
    return absl::OkStatus();
  }));
  return stored;
}

absl::StatusOr<std::optional<StoredJob>> Store::FindRequest(std::string_view request_id) {
  std::optional<StoredJob> found;
  if (request_id.empty()) return found;
  GPIPE_RETURN_IF_ERROR(database_->Run("looking for an earlier request", [&]() -> absl::Status {
    auto query = database_->Prepare("SELECT " GPIPE_JOB_COLUMNS " FROM jobs WHERE request_id = ?1");
    query.Bind(request_id);
    if (query->executeStep()) {
      GPIPE_ASSIGN_OR_RETURN(found, JobAt(*database_, query));
    }
    return absl::OkStatus();
  }));
  return found;
}

absl::StatusOr<Page<v1::Job>> Store::ListJobs(int page_size, std::string_view page_token,
                                              absl::Span<const v1::Job::State> states, bool with_results) {
  GPIPE_ASSIGN_OR_RETURN(int64_t limit, PageSize(page_size, 100, 1000));
  GPIPE_ASSIGN_OR_RETURN(int64_t before, PagePosition(page_token, std::numeric_limits<int64_t>::max()));
  GPIPE_ASSIGN_OR_RETURN(int64_t mask, MaskOf(states));
  Page<v1::Job> page;
  GPIPE_RETURN_IF_ERROR(database_->Run("listing jobs", [&]() -> absl::Status {
    auto query = database_->Prepare("SELECT " GPIPE_JOB_COLUMNS
                                    " FROM jobs WHERE sequence < ?1 AND (?2 = 0 OR (?2 >> state) & 1)"
                                    " ORDER BY sequence DESC LIMIT ?3");
    query.Bind(before, mask, limit + 1);  // One more tells whether there is a next page.
    int64_t last = 0;
    while (query->executeStep()) {
      if (static_cast<int64_t>(page.items.size()) == limit) {
        page.next_page_token = absl::StrCat(last);
        break;
      }
      GPIPE_ASSIGN_OR_RETURN(StoredJob stored, ListedJobAt(*database_, query));
      if (with_results) ReadResults(*database_, stored);
      last = stored.sequence;
      page.items.push_back(std::move(stored.job));
    }
    return absl::OkStatus();
  }));
  return page;
}

absl::StatusOr<std::vector<StoredJob>> Store::QueuedJobs() {
  return AllJobs(*database_, "SELECT " GPIPE_JOB_COLUMNS " FROM jobs WHERE state = 1 ORDER BY sequence");
}

absl::StatusOr<std::vector<StoredJob>> Store::UnfinishedJobs() {
  static_assert(v1::Job::STATE_QUEUED == 1 && v1::Job::STATE_PAUSED == 4, "the states in the statements here");
  return AllJobs(*database_, "SELECT " GPIPE_JOB_COLUMNS " FROM jobs WHERE state IN (1, 2, 3, 4) ORDER BY sequence");
}

}  // namespace gpipe::orchestrator
