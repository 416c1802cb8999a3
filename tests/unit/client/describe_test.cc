#include "client/cli/describe.h"

#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"

namespace gpipe::client {
namespace {

v1::JobEvent Event(int64_t seconds, int attempt, v1::Job::State state, const std::string& message) {
  v1::JobEvent event;
  event.mutable_time()->set_seconds(1'700'000'000 + seconds);
  event.set_attempt(attempt);
  event.set_state(state);
  event.set_actor("orchestrator");
  event.set_message(message);
  return event;
}

TEST(RenderAttempts, TellsWhenEachBeganAndHowItEnded) {
  v1::ListJobEventsResponse events;
  *events.add_events() = Event(0, 0, v1::Job::STATE_QUEUED, "submitted");
  EXPECT_EQ(RenderAttempts(events), "");
  *events.add_events() = Event(1, 1, v1::Job::STATE_STARTING, "attempt 1 on w0, w1");
  *events.add_events() = Event(2, 1, v1::Job::STATE_RUNNING, "all workers are prepared");
  *events.add_events() = Event(66, 1, v1::Job::STATE_QUEUED, "restarts in 1 s (1 of 3): w1 was lost\nmore");
  *events.add_events() = Event(68, 2, v1::Job::STATE_STARTING, "attempt 2 on w0, w2, from the checkpoint of step 8");
  const std::vector<std::string> lines = absl::StrSplit(RenderAttempts(events), '\n');
  ASSERT_EQ(lines.size(), 4);
  EXPECT_THAT(lines[1], testing::HasSubstr("1:05  w0, w1 "));
  EXPECT_THAT(lines[1], testing::EndsWith("QUEUED: restarts in 1 s (1 of 3): w1 was lost"));
  EXPECT_THAT(lines[2], testing::EndsWith("w0, w2, from the checkpoint of step 8  goes on"));
}

TEST(RenderDescription, HasTheNewestEventsAndTheSpec) {
  v1::Job job;
  job.set_id("digits-a1b2c3");
  job.mutable_spec()->set_name("digits");
  v1::ListJobEventsResponse events;
  for (int i = 1; i <= 30; ++i)
    *events.add_events() = Event(i, 0, v1::Job::STATE_QUEUED, absl::StrCat("event ", i, "."));
  const std::string text = RenderDescription(job, events, "foretold\n");
  EXPECT_THAT(text, testing::HasSubstr("\nFORECAST\nforetold\n"));
  EXPECT_THAT(text, testing::HasSubstr("(10 before: gpipe job logs digits-a1b2c3)\n"));
  EXPECT_THAT(text, testing::Not(testing::HasSubstr("event 10.")));
  EXPECT_THAT(text, testing::HasSubstr("event 11."));
  EXPECT_THAT(text, testing::HasSubstr("\nSPEC\n{\n"));
}

v1::Job Placed() {
  v1::Job job;
  v1::JobSpec& spec = *job.mutable_spec();
  spec.mutable_model()->add_sequential()->mutable_linear();
  spec.mutable_model()->add_sequential()->mutable_relu();
  spec.mutable_model()->add_sequential()->mutable_linear();
  spec.mutable_pipeline()->set_chunks(2);
  spec.mutable_pipeline()->set_checkpoint(v1::CHECKPOINT_NEVER);
  spec.mutable_pipeline()->set_schedule(v1::SCHEDULE_KIND_GPIPE);
  spec.mutable_train()->set_batch_size(16);
  for (const int64_t layers : {2, 1}) job.add_balance(layers);
  for (const int worker : {0, 1}) job.add_stage_worker(worker);
  return job;
}

TEST(RenderDescription, DrawsThePlanOfAJobThatIsPlaced) {
  EXPECT_THAT(RenderDescription(Placed(), {}, ""), testing::HasSubstr("\nPLAN\n"
                                                                      "STAGE  WORKER  LAYERS  KINDS\n"
                                                                      "    0       0     0-1  linear, relu\n"
                                                                      "    1       1       2  linear\n"
                                                                      "\n"
                                                                      "a mini-batch of 16 in 2 micro-batches of 8 8, "
                                                                      "7 clock cycles:\n"));
  const std::string text = RenderDescription(Placed(), {}, "");
  EXPECT_THAT(text, testing::ContainsRegex("\nw0 .*F0 +F1 +\\. +\\. +B1 +B0 +OPT\n"));
  EXPECT_THAT(text, testing::ContainsRegex("\nw1 .*\\. +F0 +F1 +B1 +B0 +\\. +OPT\n"));
  EXPECT_THAT(text, testing::HasSubstr("\nbubble 33%\n"));
}

TEST(RenderDescription, AJobThatWaitsHasNoPlan) {
  v1::Job job = Placed();
  job.clear_stage_worker();
  EXPECT_THAT(RenderDescription(job, {}, ""), testing::Not(testing::HasSubstr("PLAN")));
  job = Placed();
  job.mutable_spec()->mutable_pipeline()->clear_chunks();
  EXPECT_THAT(RenderDescription(job, {}, ""), testing::HasSubstr("\nPLAN\nSTAGE  WORKER  LAYERS  KINDS\n"))
      << "of what is not known nothing is said";
  EXPECT_THAT(RenderDescription(job, {}, ""), testing::Not(testing::HasSubstr("bubble")));
}

TEST(RenderDescription, APlanHasWhatWasForeseen) {
  v1::Job job = Placed();
  job.mutable_forecast()->set_step_seconds(0.042);
  for (int stage = 0; stage < 2; ++stage) {
    job.mutable_forecast()->add_stages()->set_state_bytes(4 << 20);
    job.mutable_forecast()->mutable_stages(stage)->set_forward_seconds(0.001);
  }
  EXPECT_THAT(RenderDescription(job, {}, ""),
              testing::HasSubstr("\nPLAN\n"
                                 "STAGE  WORKER  LAYERS   MEMORY  PER MICRO-BATCH  KINDS\n"
                                 "    0       0     0-1  4.0 MiB             1 ms  linear, relu\n"));
}

}  // namespace
}  // namespace gpipe::client
