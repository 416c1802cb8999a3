#ifndef GPIPE_ORCHESTRATOR_JOBS_STORE_H_
#define GPIPE_ORCHESTRATOR_JOBS_STORE_H_

#include <cstdint>
#include <filesystem>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "absl/types/span.h"
#include "gpipe/v1/job.pb.h"
#include "orchestrator/jobs/stored_job.h"

namespace gpipe {
class FileLock;
}

namespace gpipe::orchestrator {

class Database;

// One page of a list; hand `next_page_token` back for the next. Empty at the end.
template <typename T>
struct Page {
  std::vector<T> items;
  std::string next_page_token;
};

// Everything the orchestrator must not forget, in SQLite (STATE_DIR/gpipe.db, write-ahead log, synchronous=FULL): what
// was committed survives kill -9 and power loss.
//
// For one thread, the orchestrator's event loop. One process at a time: STATE_DIR/lock is held while the store is open,
// and guards the whole folder, the artifacts in it too.
//
// Each writing method is one atomic change. Outside a Batch it is committed, with one fsync, before it returns; inside
// a Batch it is committed with the batch. A method that fails changes nothing, and leaves an open batch usable.
//
// Errors of every method: NOT_FOUND names a job that is not there; RESOURCE_EXHAUSTED is a full disk; DATA_LOSS a
// damaged database; the rest of what SQLite reports is INTERNAL.
class Store {
 public:
  static constexpr char kDatabaseFile[] = "gpipe.db";

  // Opens or creates the database in the folder, which is created too, and brings its schema up to date.
  // FAILED_PRECONDITION: another process has the folder (the message names the lock file and the process), or the
  // database was written by a newer version, which is then left as it is.
  static absl::StatusOr<std::unique_ptr<Store>> Open(const std::filesystem::path& state_dir);
  ~Store();
  Store(const Store&) = delete;
  Store& operator=(const Store&) = delete;

  // Changes that are committed together, with one fsync: how many submissions are acknowledged at the price of one.
  // Must not outlive the store. Destroyed without Commit, it undoes them.
  class Batch {
   public:
    Batch(Batch&& other) noexcept;
    Batch& operator=(Batch&&) = delete;
    ~Batch();
    // Non-OK: nothing of the batch is stored, and none of it may be acknowledged. The batch is over either way.
    absl::Status Commit();

   private:
    friend class Store;
    explicit Batch(Store* store) : store_(store) {}
    Store* store_;
  };
  // FAILED_PRECONDITION when a batch is open.
  absl::StatusOr<Batch> Begin();

  // Writes the log into the database and empties it, to have less on the disk. FAILED_PRECONDITION: a batch is open.
  absl::Status FoldLog();

  struct Inserted {
    StoredJob job;
    bool created = false;  // False: the request was known, and `job` is the one it made, as it is now.
  };
  // Stores a new job at the end of the queue. REQUIRES: job.job has id, spec, state and create_time.
  // ALREADY_EXISTS: the request id is known with another fingerprint. ABORTED: the job's id is taken, choose another.
  absl::StatusOr<Inserted> InsertJob(const StoredJob& job);

  // Replaces what may change of a job: everything but id, spec and create_time, which are ignored here, and results
  // and checkpoint_step, which follow from AddResult and AddCheckpoint.
  // FAILED_PRECONDITION: the stored state is terminal and this is another one.
  absl::Status UpdateJob(const v1::Job& job);

  absl::StatusOr<StoredJob> GetJob(std::string_view id);
  // The job of an earlier request; nullopt when there is none, or the request id is empty.
  absl::StatusOr<std::optional<StoredJob>> FindRequest(std::string_view request_id);
  // Newest first; in one of `states`, or all when empty; `with_results`, or without. At most 1000 a page, 0 means 100.
  // INVALID_ARGUMENT: negative page_size, a token that no list gave, or an unknown state.
  absl::StatusOr<Page<v1::Job>> ListJobs(int page_size, std::string_view page_token,
                                         absl::Span<const v1::Job::State> states, bool with_results = false);
  // What a job had and does not have any more; others may have some of it.
  struct Dropped {
    std::vector<v1::ArtifactRef> files;
    absl::Time since;  // Who has claimed them later wants them for another job.
  };
  // Forgets the job and all of its rows; what there is most of may be forgotten some at a time before, by
  // DropSomeMetrics, which says whether there is more.
  absl::StatusOr<Dropped> DeleteJob(std::string_view id);
  absl::StatusOr<bool> DropSomeMetrics(std::string_view id, int64_t most);
  // Jobs in terminal states that ended before `before`, and those beyond the `most` that were submitted last; at most
  // `limit` of either, oldest first.
  absl::StatusOr<std::vector<std::string>> ExpiredJobs(absl::Time before, int64_t most, int64_t limit);
  // Those that no job has: neither as a file of its spec, nor in a result or a checkpoint.
  absl::StatusOr<std::vector<v1::ArtifactRef>> WithoutJob(absl::Span<const v1::ArtifactRef> files);

  // QUEUED, first come first. A job that was requeued keeps its place.
  absl::StatusOr<std::vector<StoredJob>> QueuedJobs();
  // Those in no terminal state, first come first: what a restart has to take up.
  absl::StatusOr<std::vector<StoredJob>> UnfinishedJobs();

  // Of a job's events so many are kept: the first ones, and the newest.
  static constexpr int64_t kMaxEvents = 10'000, kFirstEvents = 100;
  // Adds to the job's history; `sequence` is given here, from 1 per job, and returned with the event.
  absl::StatusOr<v1::JobEvent> AppendEvent(std::string_view job_id, v1::JobEvent event);
  // Oldest first. At most 1000 a page, 0 means 100.
  absl::StatusOr<Page<v1::JobEvent>> ListEvents(std::string_view job_id, int page_size, std::string_view page_token);

  // One entry per `step`: a step done again replaces its entry.
  // Of so many of the newest steps all are kept, and of the older ones each of so many.
  static constexpr int64_t kAllSteps = 1'000'000, kThinned = 100;
  absl::Status AppendSteps(std::string_view job_id, absl::Span<const v1::StepMetrics> steps);
  // In order of step. At most 10000 a page, 0 means 1000.
  absl::StatusOr<Page<v1::StepMetrics>> ListSteps(std::string_view job_id, int page_size, std::string_view page_token);
  absl::Status AppendEvaluation(std::string_view job_id, const v1::EvaluationMetrics& evaluation);
  // All, in order of step.
  absl::StatusOr<std::vector<v1::EvaluationMetrics>> ListEvaluations(std::string_view job_id);
  // Forgets what an attempt that starts after `step` steps is going to measure again: metrics of later steps and
  // evaluations made after more steps.
  absl::Status DropMetricsAfter(std::string_view job_id, int64_t step);

  // Records a complete checkpoint, after its files were stored; they become results (`checkpoints/STEP/manifest.json`,
  // `.../model.safetensors`, ...). One of the same step is replaced; of those before it the newest are kept, so that
  // there are `keep`, or all with 0. Returns what is dropped, which other checkpoints or results may have, too.
  absl::StatusOr<std::vector<Dropped>> AddCheckpoint(std::string_view job_id, const CheckpointFiles& checkpoint,
                                                     int64_t keep = 0, absl::Time now = absl::InfinitePast());
  // The one with the most steps; nullopt when the job has none.
  absl::StatusOr<std::optional<CheckpointFiles>> LatestCheckpoint(std::string_view job_id);

  // A file to pull. The same path again replaces it.
  absl::Status AddResult(std::string_view job_id, const v1::ResultFile& result);

  // Workers that get no new work, by name, with the reason. The same name again replaces it.
  absl::Status AddDrained(std::string_view worker, std::string_view reason);
  absl::Status RemoveDrained(std::string_view worker);
  absl::StatusOr<std::map<std::string, std::string>> DrainedWorkers();

  static constexpr int64_t kMaxProfiles = 256;
  // Remembers the layers that a worker of the kind measured when it was asked the request of that Fingerprint. Of all
  // profiles only the newest are kept.
  absl::Status AddProfile(std::string_view request, std::string_view kind, const v1::Inspected& profile);
  // nullopt when it is not known.
  absl::StatusOr<std::optional<v1::Inspected>> FindProfile(std::string_view request, std::string_view kind);

 private:
  Store(std::unique_ptr<FileLock> lock, std::unique_ptr<Database> database);

  std::unique_ptr<FileLock> lock_;  // Outlives the database.
  std::unique_ptr<Database> database_;
};

}  // namespace gpipe::orchestrator

#endif  // GPIPE_ORCHESTRATOR_JOBS_STORE_H_
