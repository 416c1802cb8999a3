// The Store's half that keeps what happened to a job: events, metrics, checkpoints, results.

#include "absl/strings/str_cat.h"
#include "common/status_macros.h"
#include "google/protobuf/util/time_util.h"
#include "orchestrator/jobs/database.h"
#include "orchestrator/jobs/removal.h"
#include "orchestrator/jobs/rows.h"
#include "orchestrator/jobs/store.h"

namespace gpipe::orchestrator {
namespace {

using google::protobuf::util::TimeUtil;

v1::JobEvent EventAt(Database::Query& query) {
  v1::JobEvent event;
  event.set_sequence(query->getColumn(0).getInt64());
  *event.mutable_time() = TimeUtil::NanosecondsToTimestamp(query->getColumn(1).getInt64());
  event.set_attempt(query->getColumn(2).getInt());
  event.set_state(static_cast<v1::Job::State>(query->getColumn(3).getInt()));
  event.set_actor(query->getColumn(4).getString());
  event.set_message(query->getColumn(5).getString());
  event.set_warning(query->getColumn(6).getInt() != 0);
  return event;
}

int64_t NextEventSequence(Database& database, int64_t job) {
  auto query = database.Prepare("SELECT COALESCE(MAX(sequence), 0) + 1 FROM job_events WHERE job = ?1");
  query.Bind(job);
  query->executeStep();
  return query->getColumn(0).getInt64();
}

// Of an endless job's history the beginning is kept, and what was of late.
absl::Status DropMiddleEvent(Database& database, int64_t job, int64_t newest) {
  const int64_t dropped = newest - (Store::kMaxEvents - Store::kFirstEvents);
  if (dropped <= Store::kFirstEvents) return absl::OkStatus();
  database.Prepare("DELETE FROM job_events WHERE job = ?1 AND sequence = ?2").Bind(job, dropped)->exec();
  return absl::OkStatus();
}

// Those steps that come to be older than kAllSteps by these ones.
void ThinSteps(Database& database, int64_t job, absl::Span<const v1::StepMetrics> steps) {
  if (steps.empty() || steps.back().step() < Store::kAllSteps) return;
  auto query =
      database.Prepare("DELETE FROM step_metrics WHERE job = ?1 AND step >= ?2 AND step <= ?3 AND step % ?4 != 0");
  query.Bind(job, steps.front().step() - Store::kAllSteps, steps.back().step() - Store::kAllSteps, Store::kThinned);
  query->exec();
}

void PutResult(Database& database, int64_t job, std::string_view path, const v1::ArtifactRef& artifact) {
  auto query = database.Prepare("INSERT OR REPLACE INTO results (job, path, sha256, size) VALUES (?1, ?2, ?3, ?4)");
  query.Bind(job, path);
  BindRef(query, 3, artifact);
  query->exec();
}

void PutCheckpointFile(Database& database, int64_t job, int64_t step, const std::string& name,
                       const v1::ArtifactRef& ref) {
  auto query =
      database.Prepare("INSERT INTO checkpoint_files (job, step, name, sha256, size) VALUES (?1, ?2, ?3, ?4, ?5)");
  query.Bind(job, step, name);
  BindRef(query, 4, ref);
  query->exec();
}

}  // namespace

absl::StatusOr<v1::JobEvent> Store::AppendEvent(std::string_view job_id, v1::JobEvent event) {
  GPIPE_RETURN_IF_ERROR(database_->RunAtomically("storing an event", [&]() -> absl::Status {
    GPIPE_ASSIGN_OR_RETURN(int64_t job, SequenceOf(*database_, job_id));
    event.set_sequence(NextEventSequence(*database_, job));
    auto query = database_->Prepare("INSERT INTO job_events VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8)");
    query.Bind(job, event.sequence(), TimeUtil::TimestampToNanoseconds(event.time()), event.attempt(), event.state(),
               event.actor(), event.message(), event.warning());
    query->exec();
    return DropMiddleEvent(*database_, job, event.sequence());
  }));
  return event;
}

absl::StatusOr<Page<v1::JobEvent>> Store::ListEvents(std::string_view job_id, int page_size,
                                                     std::string_view page_token) {
  GPIPE_ASSIGN_OR_RETURN(int64_t limit, PageSize(page_size, 100, 1000));
  GPIPE_ASSIGN_OR_RETURN(int64_t after, PagePosition(page_token, 0));
  Page<v1::JobEvent> page;
  GPIPE_RETURN_IF_ERROR(database_->Run("listing events", [&]() -> absl::Status {
    GPIPE_ASSIGN_OR_RETURN(int64_t job, SequenceOf(*database_, job_id));
    auto query = database_->Prepare(
        "SELECT sequence, time_nanos, attempt, state, actor, message, warning FROM job_events "
        "WHERE job = ?1 AND sequence > ?2 ORDER BY sequence LIMIT ?3");
    query.Bind(job, after, limit + 1);  // One more tells whether there is a next page.
    while (query->executeStep()) {
      if (static_cast<int64_t>(page.items.size()) == limit) {
        page.next_page_token = absl::StrCat(page.items.back().sequence());
        break;
      }
      page.items.push_back(EventAt(query));
    }
    return absl::OkStatus();
  }));
  return page;
}

absl::Status Store::AppendSteps(std::string_view job_id, absl::Span<const v1::StepMetrics> steps) {
  return database_->RunAtomically("storing step metrics", [&]() -> absl::Status {
    GPIPE_ASSIGN_OR_RETURN(int64_t job, SequenceOf(*database_, job_id));
    for (const v1::StepMetrics& step : steps) {
      auto query = database_->Prepare("INSERT OR REPLACE INTO step_metrics VALUES (?1, ?2, ?3)");
      query.Bind(job, step.step());
      BindBlob(query, 3, step);
      query->exec();
    }
    ThinSteps(*database_, job, steps);
    return absl::OkStatus();
  });
}

absl::StatusOr<Page<v1::StepMetrics>> Store::ListSteps(std::string_view job_id, int page_size,
                                                       std::string_view page_token) {
  GPIPE_ASSIGN_OR_RETURN(int64_t limit, PageSize(page_size, 1000, 10000));
  GPIPE_ASSIGN_OR_RETURN(int64_t after, PagePosition(page_token, 0));
  Page<v1::StepMetrics> page;
  GPIPE_RETURN_IF_ERROR(database_->Run("listing step metrics", [&]() -> absl::Status {
    GPIPE_ASSIGN_OR_RETURN(int64_t job, SequenceOf(*database_, job_id));
    auto query = database_->Prepare(
        "SELECT message, step FROM step_metrics WHERE job = ?1 AND step > ?2 ORDER BY step LIMIT ?3");
    query.Bind(job, after, limit + 1);
    while (query->executeStep()) {
      if (static_cast<int64_t>(page.items.size()) == limit) {
        page.next_page_token = absl::StrCat(page.items.back().step());
        break;
      }
      GPIPE_RETURN_IF_ERROR(ParseBlob(query, 0, page.items.emplace_back()));
      page.items.back().set_step(query->getColumn(1).getInt64());
    }
    return absl::OkStatus();
  }));
  return page;
}

absl::Status Store::AppendEvaluation(std::string_view job_id, const v1::EvaluationMetrics& evaluation) {
  return database_->RunAtomically("storing an evaluation", [&]() -> absl::Status {
    GPIPE_ASSIGN_OR_RETURN(int64_t job, SequenceOf(*database_, job_id));
    auto query = database_->Prepare("INSERT OR REPLACE INTO evaluations VALUES (?1, ?2, ?3)");
    query.Bind(job, evaluation.step());
    BindBlob(query, 3, evaluation);
    query->exec();
    return absl::OkStatus();
  });
}

absl::StatusOr<std::vector<v1::EvaluationMetrics>> Store::ListEvaluations(std::string_view job_id) {
  std::vector<v1::EvaluationMetrics> evaluations;
  GPIPE_RETURN_IF_ERROR(database_->Run("listing evaluations", [&]() -> absl::Status {
    GPIPE_ASSIGN_OR_RETURN(int64_t job, SequenceOf(*database_, job_id));
    auto query = database_->Prepare("SELECT message FROM evaluations WHERE job = ?1 ORDER BY step");
    query.Bind(job);
    while (query->executeStep()) GPIPE_RETURN_IF_ERROR(ParseBlob(query, 0, evaluations.emplace_back()));
    return absl::OkStatus();
  }));
  return evaluations;
}

absl::Status Store::DropMetricsAfter(std::string_view job_id, int64_t step) {
  return database_->RunAtomically("forgetting metrics", [&]() -> absl::Status {
    GPIPE_ASSIGN_OR_RETURN(int64_t job, SequenceOf(*database_, job_id));
    auto steps = database_->Prepare("DELETE FROM step_metrics WHERE job = ?1 AND step > ?2");
    steps.Bind(job, step)->exec();
    auto evaluations = database_->Prepare("DELETE FROM evaluations WHERE job = ?1 AND step > ?2");
    evaluations.Bind(job, step)->exec();
    return absl::OkStatus();
  });
}

absl::StatusOr<std::vector<Store::Dropped>> Store::AddCheckpoint(std::string_view job_id,
                                                                 const CheckpointFiles& checkpoint, int64_t keep,
                                                                 absl::Time now) {
  std::vector<Dropped> dropped;
  GPIPE_RETURN_IF_ERROR(database_->RunAtomically("storing a checkpoint", [&]() -> absl::Status {
    GPIPE_ASSIGN_OR_RETURN(int64_t job, SequenceOf(*database_, job_id));
    // One of an earlier attempt: it may have had other files.
    DropCheckpoint(*database_, job, checkpoint.step, dropped);
    auto query = database_->Prepare("INSERT INTO checkpoints (job, " GPIPE_CHECKPOINT_COLUMNS
                                    ", time_nanos) VALUES (?1, ?2, ?3, ?4, ?5)");
    query.Bind(job);
    BindCheckpoint(query, 2, checkpoint);
    query->bind(5, absl::ToUnixNanos(now));
    query->exec();
    const std::string folder = CheckpointFolder(checkpoint.step);
    PutResult(*database_, job, folder + "manifest.json", checkpoint.manifest);
    for (const auto& [name, ref] : checkpoint.files) {
      PutCheckpointFile(*database_, job, checkpoint.step, name, ref);
      PutResult(*database_, job, folder + name, ref);
    }
    if (keep > 0) DropOlderCheckpoints(*database_, job, keep, dropped);
    return absl::OkStatus();
  }));
  return dropped;
}

absl::StatusOr<std::optional<CheckpointFiles>> Store::LatestCheckpoint(std::string_view job_id) {
  std::optional<CheckpointFiles> latest;
  GPIPE_RETURN_IF_ERROR(database_->Run("looking for the latest checkpoint", [&]() -> absl::Status {
    GPIPE_ASSIGN_OR_RETURN(int64_t job, SequenceOf(*database_, job_id));
    auto query = database_->Prepare("SELECT " GPIPE_CHECKPOINT_COLUMNS
                                    " FROM checkpoints WHERE job = ?1 ORDER BY step DESC LIMIT 1");
    query.Bind(job);
    if (!query->executeStep()) return absl::OkStatus();
    latest = CheckpointAt(query, 0);
    auto files = database_->Prepare("SELECT name, sha256, size FROM checkpoint_files WHERE job = ?1 AND step = ?2");
    files.Bind(job, latest->step);
    latest->files = FilesAt(files);
    return absl::OkStatus();
  }));
  return latest;
}

absl::Status Store::AddResult(std::string_view job_id, const v1::ResultFile& result) {
  return database_->RunAtomically("storing a result", [&]() -> absl::Status {
    GPIPE_ASSIGN_OR_RETURN(int64_t job, SequenceOf(*database_, job_id));
    PutResult(*database_, job, result.path(), result.artifact());
    return absl::OkStatus();
  });
}

}  // namespace gpipe::orchestrator
