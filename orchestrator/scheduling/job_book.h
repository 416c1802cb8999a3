#ifndef GPIPE_ORCHESTRATOR_SCHEDULING_JOB_BOOK_H_
#define GPIPE_ORCHESTRATOR_SCHEDULING_JOB_BOOK_H_

#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "absl/status/statusor.h"
#include "orchestrator/cluster/event_loop.h"
#include "orchestrator/jobs/job_state.h"
#include "orchestrator/jobs/store.h"
#include "orchestrator/scheduling/answer_queue.h"
#include "orchestrator/scheduling/attempt.h"
#include "orchestrator/scheduling/job_observer.h"
#include "orchestrator/scheduling/job_trails.h"
#include "orchestrator/scheduling/round_files.h"
#include "orchestrator/scheduling/spec_checker.h"
#include "orchestrator/scheduling/watch_queue.h"

namespace gpipe::orchestrator {

// Lines of the workers' logs that one attempt has brought so far.
struct LineCount {
  int lines = 0;
  size_t bytes = 0;
  bool full = false;  // And the job's events say so.
};

// A job in no terminal state, as memory has it; the store has the same, metrics a moment later.
struct LiveJob {
  StoredJob stored;
  std::optional<CheckedSpec> checked;
  int unanswered_checks = 0;                   // Those that timed out.
  std::map<std::string, LayerInfos> measured;  // By kind of worker.
  int link_tries = 0;                          // To measure the links of its workers.
  bool busy = false;                           // Something that placing waits for is under way.
  std::unique_ptr<Attempt> attempt;            // While it is placed.
  int joining = 0;                             // Checkpoints of the attempt whose parts are not joined yet.
  bool model_stored = false;                   // That of the attempt, before its last evaluation; or it is about to be.
  bool storing_model = false;                  // It is about to be; the job's end waits for that.
  absl::Status model_error;                    // It could not be.
  std::function<void()> end;                   // What waits for it.
  LineCount lines;                             // Of the attempt, in the job's events.
  std::vector<std::shared_ptr<WatchQueue>> watchers;
  std::shared_ptr<AnswerQueue> client;   // Who asks for its rounds; null: nobody yet.
  bool client_done = false;              // It has said that it will ask for no more.
  RoundFiles round_files;                // What went between it and the workers.
  std::vector<v1::StepMetrics> unsaved;  // Steps that are not stored yet.
  bool dirty = false;                    // The job's progress is not stored yet.

  const std::string& id() const { return stored.job.id(); }
  v1::Job& job() { return stored.job; }
  const v1::Job& job() const { return stored.job; }
};

// Who is told of all jobs. Called on the loop's thread.
class JobListener {
 public:
  virtual ~JobListener() = default;
  // It is new, or in another state, or in the same for another reason.
  virtual void OnJobChanged(const LiveJob& job) = 0;
  virtual void OnJobProgress(const LiveJob& job) = 0;
  virtual void OnJobDeleted(const std::string& id) = 0;
};

// Of this attempt, or the last one. A checkpoint that was asked for is a round more than the job was to have.
int64_t RoundsDone(const LiveJob& job);

// A job as it is now, without its spec and results.
v1::Job Summary(const LiveJob& job);

// All jobs: what the store keeps, the unfinished ones in memory, who watches them. Every change of a job goes through
// here: it is stored, logged, and announced when it is stored. For the loop's thread.
class JobBook {
 public:
  static constexpr size_t kMaxUnfinished = 10000;
  static constexpr size_t kMaxWatchers = 1000;  // Of one job.
  // Of the workers' logs, in the events of one attempt: of all its workers together, whatever they send.
  static constexpr int kMaxLines = 5000;
  static constexpr size_t kMaxLineBytes = 2 << 20;

  // Both must outlive the book.
  JobBook(EventLoop* loop, Store* store) : loop_(loop), store_(store) {}
  JobBook(const JobBook&) = delete;
  JobBook& operator=(const JobBook&) = delete;

  // Null: nobody.
  void set_listener(JobListener* listener) { listener_ = listener; }
  // Null: nobody counts. It must outlive the book's use, and is set before that.
  void set_observer(JobObserver* observer) { observer_ = observer; }

  // Takes up what an earlier process left: queued jobs, and those that were running, which queue again, or have failed
  // where a client asked for their rounds.
  absl::Status Recover();

  // Stores a new job under a new id. As Store::InsertJob.
  absl::StatusOr<Store::Inserted> Add(StoredJob job);
  size_t unfinished() const { return live_.size(); }

  // QUEUED again, to go on from its last checkpoint; `why` as in "orchestrator restarted".
  absl::Status Requeue(LiveJob& job, std::string_view why);

  // Null when the job is not there or is over.
  LiveJob* Find(std::string_view id);
  // The QUEUED jobs that came first, at most so many, in their order.
  std::vector<LiveJob*> Queue(size_t most);
  std::vector<LiveJob*> All();

  // Moves a job on by the transition table. FAILED_PRECONDITION when it is not allowed. A job that is over is forgotten
  // with its attempt after the batch: `job` stays valid until then.
  absl::Status Change(LiveJob& job, JobEvent event, std::string_view actor, std::string_view message);
  // Something happened to it without a change of state.
  void Note(LiveJob& job, std::string_view actor, std::string_view message);
  // The same, of what its user should know though it goes on.
  void Warn(LiveJob& job, std::string_view message);
  // The same, where it is also why the job is in its state; once as long as that is so.
  void Explain(LiveJob& job, std::string_view actor, std::string_view reason);
  // What a worker of its attempt has logged, until the attempt has brought too much.
  void AddLines(LiveJob& job, std::string_view worker, const v1::Log& log);
  // A step, and what its stages did.
  void AddStep(LiveJob& job, const v1::StepMetrics& step, StepDetail detail);
  void AddEvaluation(LiveJob& job, const v1::EvaluationMetrics& evaluation);
  void AnnounceCycle(LiveJob& job, const v1::CycleDone& cycle);
  void AnnounceActivity(LiveJob& job, v1::WorkerActivity activity);
  // The job's progress changed; it is stored soon.
  void Touch(LiveJob& job);

  // NOT_FOUND names the job.
  absl::StatusOr<v1::Job> Get(std::string_view id);
  absl::StatusOr<Page<v1::Job>> List(int page_size, std::string_view page_token,
                                     const std::vector<v1::Job::State>& states, bool with_results = false);
  absl::StatusOr<Page<v1::JobEvent>> ListEvents(std::string_view id, int page_size, std::string_view page_token);
  absl::StatusOr<v1::ListJobMetricsResponse> ListMetrics(std::string_view id, int page_size,
                                                         std::string_view page_token);

  // The job now goes to `queue` first, or what came after the update that `resume_token` was with; after its last state
  // the queue is closed. NOT_FOUND; RESOURCE_EXHAUSTED.
  absl::Status Watch(std::string_view id, std::shared_ptr<WatchQueue> queue, std::string_view resume_token = "");
  void Unwatch(std::string_view id, const std::shared_ptr<WatchQueue>& queue);
  // Tells the job's attempt whether anybody watches its cycles.
  void UpdateCycleWatch(LiveJob& job);
  // Ends all watches.
  void CloseWatches(const absl::Status& why);

  // What its stages did in a step; 0 is the last one. NOT_FOUND: there is no such job, or the step is not kept.
  absl::StatusOr<v1::StepTimeline> Timeline(std::string_view id, int64_t step);

  // The job is deleted.
  void Deleted(const std::string& id);

  // Stores what is not stored yet.
  void Flush();
  Store& store() { return *store_; }

 private:
  static constexpr absl::Duration kFlushInterval = absl::Milliseconds(250);
  static constexpr size_t kMaxUnsaved = 1024;

  // Of Recover: a job that has been placed.
  absl::Status TakeUp(LiveJob& job);
  void ForgetAnotherClock(LiveJob& job);
  void Save(LiveJob& job);
  void Record(LiveJob& job, std::string_view actor, std::string_view message, bool warning = false);
  // An event of its attempt and its state.
  void Record(LiveJob& job, v1::JobEvent event);
  void Announce(const LiveJob& job, v1::WatchJobResponse update);
  void AnnounceStages(LiveJob& job, v1::StagesDone stages);
  // What a new watcher gets first.
  std::vector<JobUpdate> FirstUpdates(const v1::Job& now, std::string_view resume_token);
  void AnnounceJob(LiveJob& job);
  void Forget(LiveJob& job);

  EventLoop* const loop_;
  Store* const store_;
  JobObserver* observer_ = nullptr;
  std::map<std::string, std::shared_ptr<LiveJob>, std::less<>> live_;
  std::map<int64_t, LiveJob*> by_sequence_;
  JobTrails trails_;
  JobListener* listener_ = nullptr;
  bool flush_scheduled_ = false;
};

}  // namespace gpipe::orchestrator

#endif  // GPIPE_ORCHESTRATOR_SCHEDULING_JOB_BOOK_H_
