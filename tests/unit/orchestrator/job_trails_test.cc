#include "orchestrator/scheduling/job_trails.h"

#include "gmock/gmock.h"
#include "gtest/gtest.h"

namespace gpipe::orchestrator {
namespace {

using testing::ElementsAre;
using testing::HasSubstr;
using testing::IsEmpty;
using testing::SizeIs;

v1::Job JobOf(int attempt) {
  v1::Job job;
  job.set_id("j");
  job.set_attempt(attempt);
  job.add_workers("a");
  job.add_workers("b");
  job.add_stage_worker(0);
  job.add_stage_worker(1);
  return job;
}

void AddStep(StepTimelines& timelines, int64_t step, int attempt = 1, size_t actions = 4) {
  v1::StepMetrics metrics;
  metrics.set_step(step);
  metrics.set_bubble_share(0.25);
  StepDetail detail;
  for (size_t i = actions; i > 0; --i) {  // The last one first.
    detail.actions.push_back({.start_nanos = 1000 * step + static_cast<int64_t>(i),
                              .nanos = 1,
                              .stage = static_cast<int32_t>(i % 2),
                              .micro_batch = static_cast<int32_t>(i % 3),
                              .kind = v1::ACTION_KIND_FORWARD});
  }
  timelines.Add(JobOf(attempt), metrics, std::move(detail));
}

TEST(StepTimelinesTest, ActionsAreInOrderAndCountFromTheFirst) {
  StepTimelines timelines;
  AddStep(timelines, 7);
  const v1::StepTimeline timeline = *timelines.Get(7);
  ASSERT_THAT(timeline.actions(), SizeIs(4));
  EXPECT_EQ(timeline.actions(0).start_nanos(), 0);
  EXPECT_EQ(timeline.actions(3).start_nanos(), 3);
  EXPECT_EQ(timeline.bubble_share(), 0.25);
  EXPECT_DOUBLE_EQ(timeline.ideal_bubble_share(), 1.0 / 4) << "2 workers, 3 micro-batches";
  EXPECT_THAT(timeline.workers(), ElementsAre("a", "b"));
}

TEST(StepTimelinesTest, TheLastStepsAreKept) {
  StepTimelines timelines;
  EXPECT_TRUE(absl::IsNotFound(timelines.Get(0).status()));
  for (int64_t step = 1; step <= 20; ++step) AddStep(timelines, step);
  EXPECT_EQ(timelines.Get(0)->step(), 20);
  EXPECT_EQ(timelines.Get(5)->first_kept(), 5);
  EXPECT_EQ(timelines.Get(5)->last_kept(), 20);
  EXPECT_THAT(std::string(timelines.Get(4).status().message()), HasSubstr("of steps 5 to 20"));
  AddStep(timelines, 11, /*attempt=*/2);
  EXPECT_EQ(timelines.Get(0)->attempt(), 2);
  EXPECT_TRUE(absl::IsNotFound(timelines.Get(20).status())) << "that was another attempt";
}

TEST(StepTimelinesTest, ActionsAreBounded) {
  StepTimelines timelines;
  for (int64_t step = 1; step <= 4; ++step) AddStep(timelines, step, 1, StepTimelines::kMaxActions / 3);
  EXPECT_LE(timelines.actions(), StepTimelines::kMaxActions);
  EXPECT_EQ(timelines.Get(0)->first_kept(), 2);
  AddStep(timelines, 5, 1, 0);
  EXPECT_THAT(std::string(timelines.Get(5).status().message()), HasSubstr("more actions than are kept"));
}

v1::WatchJobResponse Event(int64_t number, size_t bytes = 0) {
  v1::WatchJobResponse update;
  update.mutable_event()->set_sequence(number);
  update.mutable_event()->set_message(std::string(bytes, 'x'));
  return update;
}
v1::WatchJobResponse JobUpdated() {
  v1::WatchJobResponse update;
  update.mutable_job()->set_reason("old");
  return update;
}
v1::Job Now() {
  v1::Job job;
  job.set_reason("now");
  return job;
}

// `3`, an event's number; `now`, the job; `-2`, what was dropped.
std::vector<std::string> Words(const std::vector<JobUpdate>& updates) {
  std::vector<std::string> words;
  for (const JobUpdate& update : updates) {
    if (update->has_event()) words.push_back(std::to_string(update->event().sequence()));
    if (update->has_job()) words.push_back(update->job().reason());
    if (update->has_dropped()) words.push_back("-" + std::to_string(update->dropped()));
  }
  return words;
}

TEST(UpdateRingTest, GoesOnBehindAnyUpdate) {
  UpdateRing ring;
  const std::string begin = ring.Token();
  const std::string first = ring.Add(Event(1))->resume_token();
  ring.Add(JobUpdated());
  ring.Add(Event(2));
  const std::string job = ring.Add(JobUpdated())->resume_token();
  const std::string last = ring.Add(Event(3))->resume_token();
  EXPECT_THAT(Words(ring.After(begin, Now()).updates), ElementsAre("1", "2", "now", "3"));
  EXPECT_THAT(Words(ring.After(first, Now()).updates), ElementsAre("2", "now", "3"));
  EXPECT_THAT(Words(ring.After(job, Now()).updates), ElementsAre("3"));
  EXPECT_THAT(ring.After(last, Now()).updates, IsEmpty());
  EXPECT_TRUE(ring.After(last, Now()).known);
  EXPECT_EQ(ring.Token(), last);
  // So do those that are sent again.
  const std::vector<JobUpdate> again = ring.After(begin, Now()).updates;
  for (size_t i = 0; i < again.size(); ++i) {
    EXPECT_THAT(ring.After(again[i]->resume_token(), Now()).updates, SizeIs(again.size() - 1 - i));
  }
}

TEST(UpdateRingTest, SaysWhatIsLost) {
  UpdateRing ring;
  const std::string begin = ring.Token();
  ring.Add(JobUpdated());
  for (size_t i = 1; i <= UpdateRing::kMaxUpdates + 5; ++i) ring.Add(Event(static_cast<int64_t>(i)));
  const std::vector<JobUpdate> updates = ring.After(begin, Now()).updates;
  const std::vector<std::string> words = Words(updates);
  ASSERT_THAT(words, SizeIs(UpdateRing::kMaxUpdates + 2));
  EXPECT_EQ(words[0], "-6");
  EXPECT_EQ(words[1], "now") << "what is lost was a change of the job";
  EXPECT_EQ(words[2], "6");
  EXPECT_THAT(Words(ring.After(updates[1]->resume_token(), Now()).updates), SizeIs(UpdateRing::kMaxUpdates));
}

TEST(UpdateRingTest, IsBoundedInBytes) {
  UpdateRing ring;
  const std::string begin = ring.Token();
  for (int64_t i = 1; i <= 10; ++i) ring.Add(Event(i, UpdateRing::kMaxBytes / 4));
  const std::vector<std::string> words = Words(ring.After(begin, Now()).updates);
  EXPECT_LE(words.size(), 6u);
  EXPECT_EQ(words.back(), "10");
  ring.Add(Event(11, 2 * UpdateRing::kMaxBytes));
  EXPECT_THAT(Words(ring.After(begin, Now()).updates), ElementsAre("-11", "now"));
}

TEST(UpdateRingTest, ForeignTokensAreNotKnown) {
  UpdateRing ring, other;
  ring.Add(Event(1));
  other.Add(Event(1));
  for (const std::string& token : {other.Token(), std::string("x"), ring.Token() + "9", ring.Token() + "x",
                                   ring.Token().substr(0, ring.Token().size() - 1), std::string("-1")}) {
    EXPECT_FALSE(ring.After(token, Now()).known) << token;
  }
}

TEST(UpdateRingTest, CyclesAreNotKept) {
  UpdateRing ring;
  ring.Add(Event(1));
  v1::WatchJobResponse cycle;
  cycle.mutable_cycle()->set_cycle(1);
  const std::string token = ring.Add(cycle)->resume_token();
  ring.Add(Event(2));
  EXPECT_THAT(Words(ring.After(token, Now()).updates), ElementsAre("2"));
}

TEST(JobTrailsTest, OnlyTheLastJobsThatEndedAreRemembered) {
  JobTrails trails;
  trails.For("running");
  for (size_t i = 0; i < JobTrails::kMaxEnded + 2; ++i) {
    trails.For(std::to_string(i));
    trails.End(std::to_string(i));
  }
  EXPECT_NE(trails.Find("running"), nullptr);
  EXPECT_EQ(trails.Find("1"), nullptr);
  EXPECT_NE(trails.Find("2"), nullptr);
  trails.Forget("2");
  EXPECT_EQ(trails.Find("2"), nullptr);
}

TEST(JobTrailsTest, LargeTimelinesPushOutOthers) {
  JobTrails trails;
  for (const char* id : {"a", "b", "c", "d", "e", "f", "g", "h", "i", "j"}) {
    AddStep(trails.For(id).timelines, 1, 1, StepTimelines::kMaxActions);
    trails.End(id);
  }
  EXPECT_EQ(trails.Find("b"), nullptr);
  EXPECT_NE(trails.Find("c"), nullptr);
  trails.Forget("c");
  AddStep(trails.For("k").timelines, 1, 1, StepTimelines::kMaxActions);
  trails.End("k");
  EXPECT_NE(trails.Find("d"), nullptr) << "what is deleted makes room";
}

}  // namespace
}  // namespace gpipe::orchestrator
