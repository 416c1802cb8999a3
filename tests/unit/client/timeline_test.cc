#include "absl/strings/str_cat.h"
#include "client/cli/plain_lines.h"
#include "client/cli/render.h"
#include "client/cli/timeline_drawing.h"
#include "client/cli/timeline_output.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "nlohmann/json.hpp"

namespace gpipe::client {
namespace {

using testing::ElementsAre;
using testing::HasSubstr;
using testing::IsEmpty;
using testing::Not;

void Add(v1::StepTimeline& timeline, int stage, v1::ActionKind kind, int micro_batch, int64_t start, int64_t end) {
  v1::ActionDone& action = *timeline.add_actions();
  action.set_stage(stage);
  action.set_kind(kind);
  action.set_micro_batch(micro_batch);
  action.set_start_nanos(start * 1'000'000);
  action.set_nanos((end - start) * 1'000'000);
}

// Of 100 ms: 0F0 and 0B0 on w0, 1F0 and 1B0 between on a worker with a name that XML must escape.
v1::StepTimeline TwoStages() {
  v1::StepTimeline timeline;
  timeline.set_job("digits-a1b2c3");
  timeline.set_step(12);
  timeline.add_workers("w0");
  timeline.add_workers("<w&1>");
  timeline.add_stage_worker(0);
  timeline.add_stage_worker(1);
  timeline.set_step_seconds(0.1);
  timeline.set_bubble_share(0.5);
  timeline.set_ideal_bubble_share(0.5);
  timeline.mutable_forecast()->set_bubble_share(0.45);
  timeline.set_first_kept(3);
  timeline.set_last_kept(12);
  Add(timeline, 0, v1::ACTION_KIND_FORWARD, 0, 0, 20);
  Add(timeline, 1, v1::ACTION_KIND_FORWARD, 0, 20, 40);
  Add(timeline, 1, v1::ACTION_KIND_BACKWARD, 0, 40, 70);
  Add(timeline, 0, v1::ACTION_KIND_BACKWARD, 0, 70, 90);
  Add(timeline, 0, v1::ACTION_KIND_OPTIMIZER, -1, 90, 100);
  return timeline;
}

TEST(TimelineTest, WordsShowWhoDidWhatWhen) {
  const std::string text = RenderTimeline(TwoStages());
  EXPECT_THAT(text, HasSubstr("step 12 of digits-a1b2c3: 0.10 s, bubble 50%, forecast 45%, ideal 50%\n"));
  EXPECT_THAT(text, HasSubstr("steps 3 to 12 are kept\n"));
  const std::string f(20, 'F'), b(20, 'B'), o(10, 'O'), idle(50, '.');
  EXPECT_THAT(text, HasSubstr(absl::StrCat("w0    |", f, idle, b, o, "|\n")));
  EXPECT_THAT(text, HasSubstr(absl::StrCat("<w&1> |", std::string(20, '.'), f, std::string(30, 'B'),
                                           std::string(30, '.'), "|\n")));
}

TEST(TimelineTest, TheTraceIsWhatPerfettoReads) {
  const auto trace = nlohmann::json::parse(TraceOf(TwoStages()));
  EXPECT_EQ(trace["otherData"]["step"], 12);
  EXPECT_EQ(trace["otherData"]["forecast_bubble_share"], 0.45);
  std::vector<std::string> names;
  for (const auto& event : trace["traceEvents"]) {
    ASSERT_TRUE(event.contains("ph") && event.contains("pid") && event.contains("name"));
    if (event["ph"] != "X") continue;
    names.push_back(event["name"]);
    if (event["name"] == "B0" && event["tid"] == 1) {
      EXPECT_EQ(event["ts"], 40'000) << "microseconds";
      EXPECT_EQ(event["dur"], 30'000);
      EXPECT_EQ(event["pid"], 1);
      EXPECT_EQ(event["cat"], "backward");
    }
  }
  EXPECT_THAT(names, ElementsAre("F0", "F0", "B0", "B0", "OPT"));
}

TEST(TimelineTest, TheDrawingHasEveryActionAndTheShares) {
  const std::string svg = DrawTimeline(TwoStages());
  EXPECT_THAT(svg, HasSubstr("class=\"optimizer\"><title>stage 0 OPT: 10 ms from 90 ms</title>"));
  // 20 ms of 100 in 1000 pixels, behind the labels.
  EXPECT_THAT(svg, HasSubstr("<rect x=\"174\" y=\"76\" width=\"200\" height=\"34\" class=\"forward\">"));
  EXPECT_THAT(svg, HasSubstr(">bubble 45%</text>"));
  EXPECT_THAT(svg, HasSubstr("&lt;w&amp;1&gt;"));
  EXPECT_THAT(svg, Not(HasSubstr("<w&1>")));
}

TEST(TimelineTest, NonsenseIsDrawnWithoutHarm) {
  v1::StepTimeline timeline = TwoStages();
  Add(timeline, 7, v1::ACTION_KIND_FORWARD, 0, 0, 1);
  Add(timeline, -1, v1::ACTION_KIND_UNSPECIFIED, 0, 0, 1);
  timeline.mutable_actions(0)->set_kind(static_cast<v1::ActionKind>(99));
  EXPECT_FALSE(DrawTimeline(timeline).empty());
  EXPECT_THAT(TraceOf(timeline), HasSubstr("\"?\""));
  EXPECT_FALSE(RenderTimeline(timeline).empty());
  EXPECT_FALSE(DrawTimeline(v1::StepTimeline()).empty());
  EXPECT_FALSE(RenderTimeline(v1::StepTimeline()).empty());
}

v1::WatchJobResponse Stages() {
  v1::WatchJobResponse update;
  v1::StageDone& stage = *update.mutable_stages()->add_stages();
  stage.set_worker("w0");
  stage.set_forward(0.2);
  stage.set_backward(0.4);
  stage.set_idle(0.4);
  stage.set_peak_saved_bytes(2048);
  v1::PeerTraffic& peer = *stage.add_traffic();
  peer.set_worker(1);
  peer.set_sent_bytes(1024);
  peer.set_received_bytes(512);
  peer.set_wait_nanos(300'000'000);
  return update;
}

v1::Job TwoWorkers() {
  v1::Job job;
  job.set_id("j");
  job.add_workers("w0");
  job.add_workers("w1");
  return job;
}

TEST(StagesTest, TheTableSaysForWhomAStageWaits) {
  const std::vector<std::string> lines = RenderStages(TwoWorkers(), Stages().stages());
  ASSERT_EQ(lines.size(), 2u);
  EXPECT_THAT(lines[0], HasSubstr("WAITS FOR"));
  for (const char* words : {"1.00 s", "60%", "20%", "40%", "1.0 KiB", "512 B", "2.0 KiB", "w1 30%"}) {
    EXPECT_THAT(lines[1], HasSubstr(words));
  }
}

TEST(StagesTest, PlainLinesBringATableASecond) {
  PlainLines lines;
  const absl::Time start = absl::FromUnixSeconds(1000);
  EXPECT_EQ(lines.Take(Stages(), start).size(), 2u);
  EXPECT_THAT(lines.Take(Stages(), start + absl::Milliseconds(900)), IsEmpty());
  EXPECT_EQ(lines.Take(Stages(), start + absl::Milliseconds(1100)).size(), 2u);
}

TEST(StagesTest, TheLiveViewHasTheTableInsteadOfBars) {
  JobProgress progress;
  progress.Apply(Stages(), absl::FromUnixSeconds(1000));
  const std::vector<std::string> lines = RenderLive(progress, {.width = 200}, absl::FromUnixSeconds(1001));
  ASSERT_GE(lines.size(), 2u);
  EXPECT_THAT(lines[lines.size() - 2], HasSubstr("BUBBLE"));
}

}  // namespace
}  // namespace gpipe::client
