#ifndef GPIPE_TESTS_UNIT_ORCHESTRATOR_SCHEDULING_TESTING_H_
#define GPIPE_TESTS_UNIT_ORCHESTRATOR_SCHEDULING_TESTING_H_

#include <deque>
#include <memory>
#include <optional>
#include <set>
#include <string>
#include <vector>

#include "common/attempt_id.h"
#include "common/file.h"
#include "common/grpc_status.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "orchestrator/scheduling/admission.h"
#include "orchestrator/scheduling/cluster_monitor.h"
#include "tests/unit/orchestrator/plan_testing.h"

namespace gpipe::orchestrator {

class FakeClock final : public Clock {
 public:
  absl::Time Now() const override { return now_; }
  void Advance(absl::Duration duration) { now_ += duration; }

 private:
  absl::Time now_ = absl::FromUnixSeconds(1'700'000'000);
};

// A worker without a process: keeps what it is told until the test looks.
class FakeWorker final : public WorkerChannel {
 public:
  void Send(const v1::OrchestratorMessage& message) override { inbox.push_back(message); }
  void Close(const absl::Status& status) override { closed = status; }
  void Cancel(const absl::Status& status) override { closed = status; }

  // The oldest message of that kind, with all before it dropped; nullopt when there is none.
  std::optional<v1::OrchestratorMessage> Take(v1::OrchestratorMessage::MessageCase kind) {
    while (!inbox.empty()) {
      v1::OrchestratorMessage message = std::move(inbox.front());
      inbox.pop_front();
      if (message.message_case() == kind) return message;
    }
    return std::nullopt;
  }
  bool Has(v1::OrchestratorMessage::MessageCase kind) const {
    for (const auto& message : inbox) {
      if (message.message_case() == kind) return true;
    }
    return false;
  }

  std::string name;
  Cluster::SessionId session = 0;
  std::deque<v1::OrchestratorMessage> inbox;
  std::optional<absl::Status> closed;
  v1::AttemptId attempt;        // Of the last assignment seen by SchedulingTest::Settle.
  v1::AttemptId links_attempt;  // The last one in which it measured links.
  v1::Plan plan;
  v1::Rounds first;
};

// Runs work at once or, when held, when the test says so.
class FakeBackground final : public Background {
 public:
  bool Run(std::function<void()> work) override {
    if (full) return false;
    held ? work_.push_back(std::move(work)) : work();
    return true;
  }
  void RunHeld() {
    while (!work_.empty()) {
      auto work = std::move(work_.front());
      work_.pop_front();
      work();
    }
  }
  bool held = false;
  bool full = false;

 private:
  std::deque<std::function<void()>> work_;
};

// All of the orchestrator but its threads and its server.
class SchedulingTest : public testing::Test {
 protected:
  struct Parts {
    Parts(Clock* clock, const std::filesystem::path& folder)
        : disk(folder),
          store(*Store::Open(folder)),
          artifacts(*ArtifactStore::Open(folder / "artifacts", {})),
          loop(clock, 1000, {.begin = [this] { return Begin(); }, .commit = [this] { return Commit(); }}),
          cluster(&loop, {.heartbeat = absl::Seconds(1), .lease = absl::Seconds(5)}),
          checker(&loop, &cluster, &checks, artifacts.get()),
          book(&loop, store.get()),
          monitor(&loop, &cluster, &book, &feed),
          profiler(&cluster.inspector(), store.get()),
          planner(&loop, &plans),
          housekeeper(
              {&loop, store.get(), artifacts.get(), &removals, [this](const std::string& id) { book.Deleted(id); }},
              {.most_jobs = 2, .keep = absl::Hours(1)}),
          scheduler({&loop, &cluster, &book, &checker, &profiler, &planner, artifacts.get(), &housekeeper, &merges}),
          admission({&loop, &cluster, &book, &scheduler, &checker, &profiler, &planner, artifacts.get(), &disk}) {
      removals.held = true;  // They ask the loop, and wait for it.
    }
    absl::Status Begin() {
      batch.emplace(*store->Begin());
      return absl::OkStatus();
    }
    absl::Status Commit() {
      absl::Status committed = commit_error.ok() ? batch->Commit() : commit_error;
      batch.reset();
      return committed;
    }

    DiskGuard disk;
    std::unique_ptr<Store> store;
    std::unique_ptr<ArtifactStore> artifacts;
    std::optional<Store::Batch> batch;
    absl::Status commit_error;
    EventLoop loop;
    Cluster cluster;
    FakeBackground checks;
    FakeBackground plans;
    FakeBackground merges;
    FakeBackground removals;
    SpecChecker checker;
    JobBook book;
    ClusterFeed feed;
    ClusterMonitor monitor;
    Profiler profiler;
    PlanMaker planner;
    Housekeeper housekeeper;
    Scheduler scheduler;
    Admission admission;
  };

  void SetUp() override { Restart(); }

  // As if the process had been killed: sessions are gone, and what is not stored.
  void Restart() {
    workers_.clear();
    parts_.reset();
    parts_ = std::make_unique<Parts>(&clock_, folder_.path() / "state");
    ASSERT_TRUE(parts_->book.Recover().ok());
    parts_->scheduler.ScheduleSoon();
    Settle();
  }

  FakeWorker& Connect(const std::string& name, const std::string& device = "cpu", const std::string& device_name = "") {
    auto worker = std::make_shared<FakeWorker>();
    worker->name = name;
    worker->session = next_session_++;
    workers_.push_back(worker);
    parts_->cluster.OnOpened(worker->session, worker);
    v1::WorkerMessage message;
    v1::Hello& hello = *message.mutable_hello();
    hello.set_name(name);
    hello.set_device(device);
    hello.set_device_name(device_name);
    hello.set_data_address("127.0.0.1");
    hello.set_memory_bytes(worker_memory_);
    hello.set_incarnation(std::to_string(worker->session));
    Say(*worker, message);
    return *worker;
  }

  void Say(FakeWorker& worker, const v1::WorkerMessage& message) {
    ASSERT_TRUE(parts_->loop.Post([this, id = worker.session, message] { parts_->cluster.OnMessage(id, message); }));
    Settle();
  }
  void Disconnect(FakeWorker& worker) {
    parts_->loop.Post([this, id = worker.session] { parts_->cluster.OnEnded(id); });
    Settle();
  }

  // Runs the loop until nothing happens any more; workers answer inspections and measure links.
  void Settle() {
    bool answered = true;
    while (answered) {
      parts_->loop.RunPending();
      answered = false;
      for (auto& worker : workers_) answered |= AnswerInspections(*worker) | AnswerLinks(*worker);
    }
  }

  bool AnswerInspections(FakeWorker& worker) {
    bool answered = false;
    for (auto message = worker.inbox.begin(); message != worker.inbox.end();) {
      if (message->has_prepare()) {
        worker.attempt = message->prepare().attempt();
        worker.plan = message->prepare().plan();
        worker.first = message->prepare().first();
      }
      if (!message->has_inspect() || !answer_inspections_) {
        ++message;
        continue;
      }
      v1::WorkerMessage answer;
      *answer.mutable_inspected() = Inspect(message->inspect(), worker);
      message = worker.inbox.erase(message);
      ++inspections_;
      parts_->loop.Post([this, id = worker.session, answer] { parts_->cluster.OnMessage(id, answer); });
      answered = true;
    }
    return answered;
  }

  // Measures links, and lets go of the attempt that was for that.
  bool AnswerLinks(FakeWorker& worker) {
    bool answered = false;
    for (auto message = worker.inbox.begin(); message != worker.inbox.end() && answer_links_;) {
      std::optional<v1::WorkerMessage> answer;
      if (message->has_measure_links()) answer = LinksOf(worker, message->measure_links());
      const bool ends = message->has_release() || message->has_abort();
      if (ends && SameAttempt(EndedBy(*message), worker.links_attempt)) {
        *answer.emplace().mutable_released()->mutable_attempt() = worker.links_attempt;
      }
      if (!answer.has_value()) {
        ++message;
        continue;
      }
      message = worker.inbox.erase(message);
      parts_->loop.Post([this, id = worker.session, answer] { parts_->cluster.OnMessage(id, *answer); });
      answered = true;
    }
    return answered;
  }
  static const v1::AttemptId& EndedBy(const v1::OrchestratorMessage& message) {
    return message.has_release() ? message.release().attempt() : message.abort().attempt();
  }

  // Of 10 us and 1 GB/s, and each slower than the one before.
  v1::WorkerMessage LinksOf(FakeWorker& worker, const v1::MeasureLinks& request) {
    worker.links_attempt = request.attempt();
    if (request.worker_index() == 0) ++link_measurements_;
    v1::WorkerMessage message;
    v1::LinksMeasured& measured = *message.mutable_links_measured();
    *measured.mutable_attempt() = request.attempt();
    if (request.worker_index() + 1 == request.workers()) return message;
    measured.mutable_next()->set_latency_seconds(1e-5 * (request.worker_index() + 1));
    measured.mutable_next()->set_bytes_per_second(1e9);
    return message;
  }

  v1::Inspected Inspect(const v1::Inspect& inspect, const FakeWorker& worker) {
    v1::Inspected inspected;
    inspected.set_id(inspect.id());
    *inspected.mutable_status() = ToProto(inspect_status_);
    if (!inspect_status_.ok()) return inspected;
    LayerInfos layers = LayersFor(inspect.model(), SampleShape(inspect.inputs(0).shape()));
    for (v1::LayerInfo& layer : layers) {
      if (inspect.profile_micro_batch() > 0) {
        const int64_t nanos = layer.parameter_count() > 0 ? 1000 : 10;
        layer.set_forward_nanos(nanos * (slow_workers_.contains(worker.name) ? 3 : 1));
      }
      *inspected.add_layers() = layer;
    }
    return inspected;
  }

  // Advances in small steps, so that the loop never looks as if it had been stopped; `alive` send heartbeats.
  void Pass(absl::Duration duration, const std::vector<FakeWorker*>& alive) {
    for (absl::Duration passed; passed < duration; passed += absl::Milliseconds(500)) {
      clock_.Advance(absl::Milliseconds(500));
      for (FakeWorker* worker : alive) {
        v1::WorkerMessage message;
        *message.mutable_heartbeat()->mutable_activity() = activity_of_[worker->name];
        Say(*worker, message);
      }
      Settle();
    }
  }

  absl::StatusOr<v1::Job> Submit(const v1::JobSpec& spec, const std::string& request_id = "") {
    v1::SubmitJobRequest request;
    *request.mutable_spec() = spec;
    request.set_request_id(request_id);
    return Submit(request);
  }
  absl::StatusOr<v1::Job> Submit(const v1::SubmitJobRequest& request) {
    auto result = std::make_shared<absl::StatusOr<v1::Job>>(absl::UnknownError("no answer"));
    parts_->loop.Post([this, request, result] {
      parts_->admission.Submit(request, request.spec(), "", [result](absl::StatusOr<v1::Job> job) { *result = job; });
    });
    Settle();
    return *result;
  }

  absl::StatusOr<v1::PlanJobResponse> Plan(const v1::JobSpec& spec, int workers = 0) {
    v1::PlanJobRequest request;
    request.set_workers(workers);
    auto result = std::make_shared<absl::StatusOr<v1::PlanJobResponse>>(absl::UnknownError("no answer"));
    parts_->loop.Post([this, request, spec, result] {
      parts_->admission.Plan(request, spec, [result](absl::StatusOr<v1::PlanJobResponse> plan) { *result = plan; });
    });
    Settle();
    return *result;
  }

  // Runs something on the loop, as a client's request does.
  template <typename Body>
  auto Do(Body body) {
    std::optional<decltype(body())> result;
    parts_->loop.Post([&] { result = body(); });
    Settle();
    return *std::move(result);
  }
  v1::Job Get(const std::string& id) {
    return *Do([&] { return parts_->book.Get(id); });
  }
  v1::Worker::State StateOf(const std::string& name) { return parts_->cluster.registry().Find(name)->state; }

  // What a worker of an attempt says.
  void SayPrepared(FakeWorker& worker) {
    v1::WorkerMessage message;
    *message.mutable_prepared()->mutable_attempt() = worker.attempt;
    Say(worker, message);
  }
  void SayReleased(FakeWorker& worker) {
    v1::WorkerMessage message;
    *message.mutable_released()->mutable_attempt() = worker.attempt;
    Say(worker, message);
  }
  void SayFailed(FakeWorker& worker, const absl::Status& status, bool consequence) {
    v1::WorkerMessage message;
    v1::Failed& failed = *message.mutable_failed();
    *failed.mutable_attempt() = worker.attempt;
    *failed.mutable_status() = ToProto(status);
    failed.set_consequence(consequence);
    if (activity_of_.contains(worker.name)) *failed.mutable_activity() = activity_of_[worker.name];
    Say(worker, message);
  }
  void SayFinished(FakeWorker& worker) {
    v1::WorkerMessage message;
    *message.mutable_finished()->mutable_attempt() = worker.attempt;
    Say(worker, message);
  }
  void SayLeaving(FakeWorker& worker) {
    v1::WorkerMessage message;
    message.mutable_leaving()->set_reason("SIGTERM");
    Say(worker, message);
  }
  // A whole round, with the loss when it hosts the last stage.
  void SayRound(FakeWorker& worker, int index, int64_t round, int64_t step) {
    v1::WorkerMessage message;
    v1::Progress& progress = *message.mutable_progress();
    *progress.mutable_attempt() = worker.attempt;
    progress.set_round(round);
    progress.set_cycle(worker.plan.programs(0).cycles() - 1);
    v1::RoundDone& done = *progress.add_rounds();
    done.set_round(round);
    done.set_step(step);
    done.set_samples(8);
    done.set_wall_nanos(1'000'000'000);
    for (int stage = 0; stage < worker.plan.stages_size(); ++stage) {
      if (worker.plan.stage_worker(stage) != index) continue;
      v1::StageReport& time = *done.add_stages();
      time.set_stage(stage);
      time.set_busy_nanos(250'000'000);
      if (stage == worker.plan.stages_size() - 1) done.set_loss(2.5);
    }
    Say(worker, message);
  }
  // What it does from its next heartbeat on.
  void Work(const FakeWorker& worker, v1::Phase phase, int stage, int64_t step, int micro_batch) {
    v1::Activity& activity = activity_of_[worker.name];
    *activity.mutable_attempt() = worker.attempt;
    activity.set_phase(phase);
    activity.set_stage(stage);
    activity.set_step(step);
    activity.set_micro_batch(micro_batch);
  }

  TemporaryFolder folder_ = *TemporaryFolder::Create("scheduling");
  FakeClock clock_;
  std::unique_ptr<Parts> parts_;
  std::vector<std::shared_ptr<FakeWorker>> workers_;
  Cluster::SessionId next_session_ = 1;
  int64_t worker_memory_ = 0;  // Of those that connect from now on; 0: not known.
  bool answer_inspections_ = true;
  absl::Status inspect_status_;
  int inspections_ = 0;
  std::set<std::string> slow_workers_;  // By name: those that measure three times the time.
  bool answer_links_ = true;
  int link_measurements_ = 0;
  std::map<std::string, v1::Activity> activity_of_;
};

}  // namespace gpipe::orchestrator

#endif  // GPIPE_TESTS_UNIT_ORCHESTRATOR_SCHEDULING_TESTING_H_
