#include "orchestrator/metrics/job_counters.h"

#include "gmock/gmock.h"
#include "google/protobuf/util/time_util.h"
#include "gtest/gtest.h"
#include "orchestrator/metrics/call_counter.h"
#include "orchestrator/metrics/definitions.h"
#include "prometheus/text_serializer.h"
#include "tests/unit/common/metrics_document.h"
#include "tests/unit/orchestrator/scheduling_testing.h"

namespace gpipe::orchestrator {
namespace {

using ::testing::HasSubstr;
using ::testing::Not;

TEST(OrchestratorMetricsTest, AreThoseOfTheDocument) {
  EXPECT_EQ(DefinedMetrics(metric::All()), DocumentedMetrics({"Orchestrator", "Both"}));
}

class JobCountersTest : public testing::Test {
 protected:
  v1::Job NewJob(const std::string& id) {
    v1::Job job;
    job.set_id(id);
    job.set_state(v1::Job::STATE_QUEUED);
    *job.mutable_create_time() =
        google::protobuf::util::TimeUtil::NanosecondsToTimestamp(absl::ToUnixNanos(clock_.Now()));
    counters_.OnAdded(job);
    return job;
  }
  void Change(v1::Job& job, JobEvent event, v1::Job::State state, const std::string& reason = "") {
    job.set_state(state);
    job.set_reason(reason);
    counters_.OnChanged(job, event);
  }
  std::string Text() const { return prometheus::TextSerializer().Serialize(registry_.Collect()); }

  FakeClock clock_;
  prometheus::Registry registry_;
  JobCounters counters_{registry_, clock_};
};

TEST_F(JobCountersTest, WhatHasNotHappenedIsZero) {
  EXPECT_THAT(Text(), HasSubstr("gpipe_job_submit_total 0\n"));
  EXPECT_THAT(Text(), HasSubstr("gpipe_job_end_total{state=\"FAILED\"} 0\n"));
  EXPECT_THAT(Text(), HasSubstr("gpipe_job_failures_total{code=\"WORKER_LOST\"} 0\n"));
  EXPECT_THAT(Text(), HasSubstr("gpipe_job_restarts_total{reason=\"WORKER_LOST\"} 0\n"));
}

TEST_F(JobCountersTest, WaitsAreCountedFromTheLastTimeInTheQueue) {
  v1::Job job = NewJob("a-1");
  clock_.Advance(absl::Seconds(20));
  Change(job, JobEvent::kPlaced, v1::Job::STATE_STARTING);
  EXPECT_THAT(Text(), HasSubstr("gpipe_queue_wait_seconds_sum 20\n"));
  clock_.Advance(absl::Seconds(100));
  Change(job, JobEvent::kRequeue, v1::Job::STATE_QUEUED, "orchestrator restarted; goes on from the beginning");
  clock_.Advance(absl::Seconds(3));
  EXPECT_EQ(counters_.QueuedSince(job), clock_.Now() - absl::Seconds(3));
  Change(job, JobEvent::kPlaced, v1::Job::STATE_STARTING);
  EXPECT_THAT(Text(), HasSubstr("gpipe_queue_wait_seconds_sum 23\n"));
  EXPECT_THAT(Text(), HasSubstr("gpipe_queue_wait_seconds_count 2\n"));
  EXPECT_THAT(Text(), HasSubstr("gpipe_job_restarts_total{reason=\"ORCHESTRATOR_STOPPED\"} 1\n"));
}

TEST_F(JobCountersTest, RestartsHaveReasons) {
  v1::Job job = NewJob("a-1");
  Change(job, JobEvent::kRequeue, v1::Job::STATE_QUEUED, "worker w1 (stage 1) cannot be reached");
  EXPECT_THAT(Text(), HasSubstr("gpipe_job_restarts_total{reason=\"WORKER_UNREACHABLE\"} 1\n"));
  job.mutable_last_failure()->set_code("WORKER_LOST");
  *job.mutable_restart_time() = google::protobuf::util::TimeUtil::SecondsToTimestamp(1);
  Change(job, JobEvent::kRequeue, v1::Job::STATE_QUEUED, "restarts in 2 s");
  EXPECT_THAT(Text(), HasSubstr("gpipe_job_restarts_total{reason=\"WORKER_LOST\"} 1\n"));
}

TEST_F(JobCountersTest, EndsAndFailuresByFewWords) {
  v1::Job job = NewJob("a-1");
  job.mutable_failure()->set_code("a word of tomorrow");
  Change(job, JobEvent::kFail, v1::Job::STATE_FAILED);
  v1::Job another = NewJob("a-2");
  Change(another, JobEvent::kCancel, v1::Job::STATE_CANCELLED);
  EXPECT_THAT(Text(), HasSubstr("gpipe_job_submit_total 2\n"));
  EXPECT_THAT(Text(), HasSubstr("gpipe_job_end_total{state=\"FAILED\"} 1\n"));
  EXPECT_THAT(Text(), HasSubstr("gpipe_job_end_total{state=\"CANCELLED\"} 1\n"));
  EXPECT_THAT(Text(), HasSubstr("gpipe_job_failures_total{code=\"OTHER\"} 1\n"));
  EXPECT_THAT(Text(), Not(HasSubstr("tomorrow")));
}

TEST_F(JobCountersTest, StepsAndTheirSamples) {
  v1::StepMetrics step;
  step.set_step_seconds(0.2);
  step.set_samples_per_second(64 / 0.2);
  counters_.OnStep({}, step);
  counters_.OnStep({}, step);
  EXPECT_THAT(Text(), HasSubstr("gpipe_steps_total 2\n"));
  EXPECT_THAT(Text(), HasSubstr("gpipe_samples_total 128\n"));
  EXPECT_THAT(Text(), HasSubstr("gpipe_step_duration_seconds_bucket{le=\"0.25\"} 2\n"));
}

// Anybody can make up as many as he likes, and each would be kept.
TEST(CallCounterTest, MethodsThatThereAreNotAreCountedAsOne) {
  prometheus::Registry registry;
  CallCounter counter(registry, {"/gpipe.v1.JobService/GetJob"});
  counter.Count("/gpipe.v1.JobService/GetJob", grpc::Status::OK);
  for (const char* method : {"/gpipe.v1.JobService/GetJob1", "/gpipe.v1.JobService/GetJob2", "", "/"}) {
    counter.Count(method, grpc::Status(grpc::StatusCode::UNIMPLEMENTED, ""));
  }
  const std::string text = prometheus::TextSerializer().Serialize(registry.Collect());
  EXPECT_THAT(text, HasSubstr("gpipe_grpc_calls_total{code=\"OK\",method=\"gpipe.v1.JobService/GetJob\"} 1\n"));
  EXPECT_THAT(text, HasSubstr("gpipe_grpc_calls_total{code=\"UNIMPLEMENTED\",method=\"other\"} 4\n"));
  EXPECT_THAT(text, Not(HasSubstr("GetJob1")));
}

}  // namespace
}  // namespace gpipe::orchestrator
