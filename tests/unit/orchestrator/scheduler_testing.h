#ifndef GPIPE_TESTS_UNIT_ORCHESTRATOR_SCHEDULER_TESTING_H_
#define GPIPE_TESTS_UNIT_ORCHESTRATOR_SCHEDULER_TESTING_H_

#include "orchestrator/scheduling/scheduler.h"
#include "tests/unit/orchestrator/scheduling_testing.h"

namespace gpipe::orchestrator {

class SchedulerTest : public SchedulingTest {
 protected:
  // A job of two stages on w0 and w1.
  void StartJob(const v1::JobSpec& spec = ParseSpec(kTrainYaml)) {
    w0_ = &Connect("w0");
    w1_ = &Connect("w1");
    id_ = Submit(spec)->id();
  }
  void RunJob(const v1::JobSpec& spec = ParseSpec(kTrainYaml)) {
    StartJob(spec);
    SayPrepared(*w0_);
    SayPrepared(*w1_);
    ASSERT_EQ(Get(id_).state(), v1::Job::STATE_RUNNING);
  }
  void RoundOfBoth(int64_t round, int64_t step) {
    SayRound(*w0_, 0, round, step);
    SayRound(*w1_, 1, round, step);
  }
  std::vector<v1::JobEvent> Events() {
    return Do([&] { return parts_->book.ListEvents(id_, 0, ""); })->items;
  }
  FakeWorker* w0_ = nullptr;
  FakeWorker* w1_ = nullptr;
  std::string id_;
};

class AttemptFailureTest : public SchedulingTest {
 protected:
  void SetUp() override {
    SchedulingTest::SetUp();
    w0_ = &Connect("w0");
    w1_ = &Connect("w1");
    id_ = Submit(ParseSpec(kTrainYaml))->id();
  }
  void Run() {
    SayPrepared(*w0_);
    SayPrepared(*w1_);
  }
  void SayRounds(FakeWorker& worker, int index, int64_t first, int64_t end) {
    for (int64_t round = first; round < end; ++round) SayRound(worker, index, round, round);
  }
  // Only the last rounds of w0 are missing: grants do not run further ahead.
  void RunUntilOnlyTheOtherIsBehind() {
    Run();
    SayRounds(*w0_, 0, 0, 6);
    SayRounds(*w1_, 1, 0, 10);
    SayFinished(*w1_);
  }
  v1::Failure FailureOfJob() {
    const v1::Job job = Get(id_);
    EXPECT_EQ(job.state(), v1::Job::STATE_FAILED);
    return job.failure();
  }
  FakeWorker* w0_ = nullptr;
  FakeWorker* w1_ = nullptr;
  std::string id_;
};

}  // namespace gpipe::orchestrator

#endif  // GPIPE_TESTS_UNIT_ORCHESTRATOR_SCHEDULER_TESTING_H_
