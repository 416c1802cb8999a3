#ifndef GPIPE_TESTS_UNIT_ORCHESTRATOR_SCHEDULER_TESTING_H_
#define GPIPE_TESTS_UNIT_ORCHESTRATOR_SCHEDULER_TESTING_H_

#include "orchestrator/scheduling/scheduler.h"
#include "tests/unit/orchestrator/scheduling_testing.h"

namespace gpipe::orchestrator {

// Of a job that fails where another one would restart.
inline v1::JobSpec OnceSpec() {
  v1::JobSpec spec = ParseSpec(kTrainYaml);
  spec.set_max_restarts(0);
  return spec;
}

class SchedulerTest : public SchedulingTest {
 protected:
  void ConnectBoth() {
    w0_ = &Connect("w0");
    w1_ = &Connect("w1");
  }
  void SayBothPrepared() {
    SayPrepared(*w0_);
    SayPrepared(*w1_);
  }
  // A job of two stages on w0 and w1.
  void StartJob(const v1::JobSpec& spec = ParseSpec(kTrainYaml)) {
    ConnectBoth();
    id_ = Submit(spec)->id();
  }
  void RunJob(const v1::JobSpec& spec = ParseSpec(kTrainYaml)) {
    StartJob(spec);
    SayBothPrepared();
    ASSERT_EQ(Get(id_).state(), v1::Job::STATE_RUNNING);
  }
  void RoundOfBoth(int64_t round, int64_t step) {
    SayRound(*w0_, 0, round, step);
    SayRound(*w1_, 1, round, step);
  }
  // Both have written their parts of a checkpoint.
  void SaveOfBoth(int64_t step) {
    for (FakeWorker* worker : {w0_, w1_}) {
      v1::WorkerMessage message;
      *message.mutable_checkpoint_shard()->mutable_attempt() = worker->attempt;
      message.mutable_checkpoint_shard()->set_step(step);
      Say(*worker, message);
    }
  }
  // Of all pages.
  std::vector<v1::JobEvent> Events() {
    std::vector<v1::JobEvent> all;
    std::string token;
    do {
      const auto page = *Do([&] { return parts_->book.ListEvents(id_, 1000, token); });
      all.insert(all.end(), page.items.begin(), page.items.end());
      token = page.next_page_token;
    } while (!token.empty());
    return all;
  }
  FakeWorker* w0_ = nullptr;
  FakeWorker* w1_ = nullptr;
  std::string id_;
};

// Begins with such a job, placed.
class AttemptFailureTest : public SchedulerTest {
 protected:
  void SetUp() override {
    SchedulerTest::SetUp();
    StartJob(OnceSpec());
  }
  void Run() { SayBothPrepared(); }
  void SayRounds(FakeWorker& worker, int index, int64_t first, int64_t end) {
    for (int64_t round = first; round < end; ++round) SayRound(worker, index, round, round);
  }
  // Only the last rounds of w0 are missing: grants run no further ahead of the slower one.
  void RunUntilOnlyTheOtherIsBehind() {
    Run();
    SayRounds(*w0_, 0, 0, 6);
    SayRounds(*w1_, 1, 0, 8);
    SayRounds(*w0_, 0, 6, 8);
    SayRounds(*w1_, 1, 8, 10);
    SayFinished(*w1_);
  }
  v1::Failure FailureOfJob() {
    const v1::Job job = Get(id_);
    EXPECT_EQ(job.state(), v1::Job::STATE_FAILED);
    return job.failure();
  }
};

}  // namespace gpipe::orchestrator

#endif  // GPIPE_TESTS_UNIT_ORCHESTRATOR_SCHEDULER_TESTING_H_
