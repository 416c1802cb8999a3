#include "client/cli/render.h"

#include "absl/strings/match.h"
#include "absl/strings/str_join.h"
#include "client/cli/display.h"
#include "client/cli/job_output.h"
#include "client/cli/live_display.h"
#include "client/cli/plain_lines.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"

namespace gpipe::client {
namespace {

using testing::ElementsAre;
using testing::HasSubstr;
using testing::IsEmpty;
using testing::Not;

const absl::Time kStart = absl::FromUnixSeconds(1000);

v1::WatchJobResponse JobUpdate(v1::Job::State state, int64_t steps_done = 0) {
  v1::WatchJobResponse update;
  v1::Job& job = *update.mutable_job();
  job.set_id("digits-a1b2c3");
  job.mutable_spec()->mutable_train();
  job.set_state(state);
  job.set_attempt(1);
  for (const char* worker : {"w0", "w1"}) job.add_workers(worker);
  for (const int worker : {0, 1}) job.add_stage_worker(worker);
  job.set_steps_done(steps_done);
  job.set_steps_total(100);
  auto& activity = *job.add_activities();
  activity.set_phase(v1::PHASE_FORWARD);
  activity.set_step(3);
  activity.set_micro_batch(2);
  job.add_activities()->set_phase(v1::PHASE_JOINING);
  return update;
}

v1::WatchJobResponse StepUpdate(int64_t step) {
  v1::WatchJobResponse update;
  v1::StepMetrics& metrics = *update.mutable_step();
  metrics.set_step(step);
  metrics.set_loss(0.4312);
  metrics.set_lr(0.002);
  metrics.set_samples_per_second(1234);
  metrics.set_bubble_share(0.25);
  metrics.add_stage_busy(0.5);
  metrics.add_stage_busy(1);
  return update;
}

v1::WatchJobResponse EvaluationUpdate() {
  v1::WatchJobResponse update;
  update.mutable_evaluation()->set_step(50);
  update.mutable_evaluation()->set_loss(0.211);
  update.mutable_evaluation()->set_accuracy(0.951);
  return update;
}

JobProgress HalfDone() {
  JobProgress progress;
  progress.Apply(JobUpdate(v1::Job::STATE_RUNNING), kStart);
  progress.Apply(StepUpdate(50), kStart + absl::Seconds(10));
  progress.Apply(EvaluationUpdate(), kStart + absl::Seconds(10));
  return progress;
}

TEST(Eta, IsThePaceSoFarOverWhatIsLeft) {
  EXPECT_EQ(Eta(0, 50, 100, absl::Seconds(10)), absl::Seconds(10));
  EXPECT_EQ(Eta(40, 50, 100, absl::Seconds(10)), absl::Seconds(50));  // A resumed job began at 40.
  EXPECT_EQ(Eta(0, 120, 100, absl::Seconds(10)), absl::ZeroDuration());
  EXPECT_EQ(Eta(0, 0, 100, absl::Seconds(10)), std::nullopt);
  EXPECT_EQ(Eta(0, 5, 0, absl::Seconds(10)), std::nullopt);
  EXPECT_EQ(Eta(0, 5, 10, absl::ZeroDuration()), std::nullopt);
}

TEST(JobProgress, AStaleCountNeverTakesProgressBack) {
  JobProgress progress = HalfDone();
  progress.Apply(JobUpdate(v1::Job::STATE_RUNNING, 20), kStart + absl::Seconds(11));
  EXPECT_EQ(progress.done(), 50);
}

// The stored count is older than the stream's first step: the steps between were not made just now.
TEST(JobProgress, ThePaceOfAJobThatRanAlreadyBeginsWithItsNextStep) {
  JobProgress progress;
  progress.Apply(JobUpdate(v1::Job::STATE_RUNNING, 10), kStart);
  progress.Apply(StepUpdate(50), kStart + absl::Milliseconds(10));
  EXPECT_EQ(progress.eta(kStart + absl::Seconds(1)), std::nullopt);
  progress.Apply(StepUpdate(60), kStart + absl::Milliseconds(10) + absl::Seconds(10));
  EXPECT_EQ(progress.eta(kStart + absl::Milliseconds(10) + absl::Seconds(10)), absl::Seconds(40));
}

TEST(JobProgress, ANewAttemptBeginsWhereItsCheckpointIs) {
  JobProgress progress = HalfDone();
  v1::WatchJobResponse again = JobUpdate(v1::Job::STATE_RUNNING, 20);
  again.mutable_job()->set_attempt(2);
  progress.Apply(again, kStart + absl::Seconds(20));
  EXPECT_EQ(progress.done(), 20);
  EXPECT_EQ(progress.eta(kStart + absl::Seconds(30)), std::nullopt);
}

TEST(RenderLive, ShowsBarMetricsEvaluationAndStages) {
  const auto lines = RenderLive(HalfDone(), {.width = 100}, kStart + absl::Seconds(10));
  EXPECT_THAT(lines,
              ElementsAre("digits-a1b2c3  RUNNING",
                          "[#########################.........................]  50%  step 50/100  0:10  eta 0:10",
                          "loss 0.4312  lr 0.002  1234 samples/s  bubble 25%",
                          "step 50  evaluation: loss 0.2110, accuracy 95.1%",
                          "stage 0  w0         [##########..........]  50% busy",
                          "stage 1  w1         [####################] 100% busy"));
}

TEST(RenderLive, BeforeTheFirstStepStagesSayWhatTheyPrepare) {
  JobProgress progress;
  progress.Apply(JobUpdate(v1::Job::STATE_STARTING), kStart);
  EXPECT_EQ(RenderLive(progress, {.width = 100}, kStart).back(), "stage 1  w1          joining");
}

TEST(RenderLive, NoLineIsWiderThanTheTerminal) {
  for (const int width : {1, 10, 40, 79, 200}) {
    for (const std::string& line : RenderLive(HalfDone(), {.width = width}, kStart)) {
      EXPECT_LE(line.size(), static_cast<size_t>(width)) << line;
    }
  }
}

TEST(RenderLive, ColoursComeOnlyWhenWanted) {
  EXPECT_THAT(absl::StrJoin(RenderLive(HalfDone(), {.width = 80}, kStart), "\n"), Not(HasSubstr("\x1b")));
  EXPECT_THAT(absl::StrJoin(RenderLive(HalfDone(), {.width = 80, .color = true}, kStart), "\n"),
              HasSubstr("\x1b[32m[##########..........]\x1b[0m"));
}

TEST(RenderLive, AQueuedJobSaysWhyItWaits) {
  v1::WatchJobResponse update = JobUpdate(v1::Job::STATE_QUEUED);
  update.mutable_job()->set_reason("waiting for 2 workers");
  update.mutable_job()->clear_stage_worker();
  JobProgress progress;
  progress.Apply(update, kStart);
  EXPECT_THAT(RenderLive(progress, {.width = 80}, kStart)[0], "digits-a1b2c3  QUEUED  waiting for 2 workers");
}

TEST(Redraw, GoesUpOverWhatWasDrawnAndClearsIt) {
  EXPECT_EQ(Redraw(0, {"a"}), "\r\x1b[Ja\n");
  EXPECT_EQ(Redraw(3, {"a", "b"}), "\x1b[3A\r\x1b[Ja\nb\n");
}

TEST(LiveDisplay, TheLastStateIsOnTheScreenAtTheEnd) {
  std::FILE* out = std::tmpfile();
  {
    const auto display = MakeDisplay(DisplayKind::kLive, out);
    display->Show(JobUpdate(v1::Job::STATE_RUNNING));
    for (int step = 1; step <= 100; ++step) display->Show(StepUpdate(step));
    display->Show(JobUpdate(v1::Job::STATE_SUCCEEDED, 100));
    display->Finish();
  }
  std::string text(static_cast<size_t>(std::ftell(out)), '\0');
  std::rewind(out);
  ASSERT_EQ(std::fread(text.data(), 1, text.size(), out), text.size());
  std::fclose(out);
  const std::string last = text.substr(text.rfind("\x1b[J"));
  EXPECT_THAT(last, HasSubstr("SUCCEEDED"));
  EXPECT_THAT(last, HasSubstr("step 100/100"));
  EXPECT_EQ(text.back(), '\n');
}

TEST(RenderCycle, NamesWhichStageWorkedOnWhichMicroBatch) {
  v1::CycleDone cycle;
  cycle.set_round(3);
  cycle.set_cycle(5);
  auto& optimizer = *cycle.add_actions();
  optimizer.set_stage(1);
  optimizer.set_kind(v1::ACTION_KIND_OPTIMIZER);
  optimizer.set_micro_batch(-1);
  auto& backward = *cycle.add_actions();  // Reported later, shown in order.
  backward.set_kind(v1::ACTION_KIND_BACKWARD);
  backward.set_micro_batch(2);
  EXPECT_EQ(RenderCycle(cycle), "round 3 cycle 5  stage0 B2  stage1 OPT");
}

TEST(RenderEnd, AFailureIsItsCauseThenItsConsequences) {
  v1::WatchJobResponse update = JobUpdate(v1::Job::STATE_FAILED);
  v1::Failure& failure = *update.mutable_job()->mutable_failure();
  failure.set_code("WORKER_LOST");
  failure.set_worker("w1");
  failure.set_stage(1);
  failure.set_doing("backward of micro-batch 3 in step 12");
  failure.set_message("its session ended");
  failure.add_consequences("w0: connection closed by peer");
  JobProgress progress;
  progress.Apply(update, kStart);
  EXPECT_EQ(RenderEnd(progress),
            "digits-a1b2c3 FAILED: WORKER_LOST\n"
            "  worker w1, stage 1\n"
            "  while backward of micro-batch 3 in step 12\n"
            "  its session ended\n"
            "  consequences:\n"
            "    w0: connection closed by peer");
}

TEST(RenderEnd, ASuccessSaysHowLongAndHowGood) {
  JobProgress progress = HalfDone();
  v1::WatchJobResponse update = JobUpdate(v1::Job::STATE_SUCCEEDED, 100);
  update.mutable_job()->mutable_start_time()->set_seconds(1000);
  update.mutable_job()->mutable_end_time()->set_seconds(1012);
  progress.Apply(update, kStart);
  EXPECT_EQ(RenderEnd(progress), "digits-a1b2c3 SUCCEEDED: step 100/100 in 12.0 s, loss 0.4312, test accuracy 95.1%");
}

TEST(PlainLines, SayEachStateOnceAndProgressOnceASecond) {
  PlainLines lines;
  EXPECT_THAT(lines.Take(JobUpdate(v1::Job::STATE_RUNNING), kStart), ElementsAre("digits-a1b2c3 RUNNING on w0, w1"));
  EXPECT_THAT(lines.Take(JobUpdate(v1::Job::STATE_RUNNING, 1), kStart), IsEmpty());
  EXPECT_THAT(lines.Take(StepUpdate(2), kStart + absl::Seconds(1)),
              ElementsAre("step 2/100  2%  loss 0.4312  lr 0.002  1234 samples/s  eta 0:49"));
  EXPECT_THAT(lines.Take(StepUpdate(3), kStart + absl::Milliseconds(1900)), IsEmpty());
  EXPECT_EQ(lines.Take(StepUpdate(4), kStart + absl::Seconds(2)).size(), 1u);
  EXPECT_EQ(lines.Take(EvaluationUpdate(), kStart + absl::Seconds(2)).size(), 1u);
  EXPECT_THAT(lines.Take(JobUpdate(v1::Job::STATE_SUCCEEDED), kStart), IsEmpty());
}

TEST(PlainLines, SayWhatAJobWaitsForWhenThatIsSomethingElse) {
  PlainLines lines;
  v1::WatchJobResponse update = JobUpdate(v1::Job::STATE_QUEUED);
  update.mutable_job()->set_reason("restarts in 1 s (1 of 3): worker w1 was lost");
  EXPECT_THAT(lines.Take(update, kStart),
              ElementsAre("digits-a1b2c3 QUEUED: restarts in 1 s (1 of 3): worker w1 was lost"));
  EXPECT_THAT(lines.Take(update, kStart), IsEmpty());
  update.mutable_job()->set_reason("restart 1 of 3: needs 2 workers; 1 is connected");
  EXPECT_THAT(lines.Take(update, kStart),
              ElementsAre("digits-a1b2c3 QUEUED: restart 1 of 3: needs 2 workers; 1 is connected"));
}

TEST(PlainLines, SayHowFastAWorkerGetsItsFiles) {
  PlainLines lines;
  lines.Take(JobUpdate(v1::Job::STATE_STARTING), kStart);
  v1::WatchJobResponse update;
  update.mutable_activity()->set_worker(1);
  v1::Activity& activity = *update.mutable_activity()->mutable_activity();
  activity.set_phase(v1::PHASE_PREPARING);
  activity.set_bytes_done(int64_t{3} << 29);
  activity.set_bytes_per_second(800 << 20);
  EXPECT_THAT(lines.Take(update, kStart + absl::Seconds(1)), ElementsAre("w1 preparing 1.5 GiB, 800.0 MiB/s"));
  EXPECT_THAT(lines.Take(update, kStart + absl::Milliseconds(1500)), IsEmpty());
  update.mutable_activity()->set_worker(7);
  EXPECT_THAT(lines.Take(update, kStart + absl::Seconds(3)), ElementsAre("? preparing 1.5 GiB, 800.0 MiB/s"));
}

TEST(JobProgress, OnlyTheOrchestratorsWarningsAreShownBesideIt) {
  v1::WatchJobResponse update;
  update.mutable_event()->set_actor("w0");
  update.mutable_event()->set_message("NCCL is slow");
  update.mutable_event()->set_warning(true);
  JobProgress progress;
  PlainLines lines;
  progress.Apply(update, kStart);
  EXPECT_THAT(lines.Take(update, kStart), IsEmpty());
  EXPECT_THAT(progress.warnings(), IsEmpty());
  update.mutable_event()->set_actor("orchestrator");
  progress.Apply(update, kStart);
  EXPECT_THAT(lines.Take(update, kStart), ElementsAre("warning: NCCL is slow"));
  EXPECT_THAT(progress.warnings(), ElementsAre("NCCL is slow"));
}

TEST(RenderEvent, FurtherLinesOfAMessageAreSetOff) {
  v1::JobEvent event;
  event.set_state(v1::Job::STATE_RUNNING);
  event.set_actor("w0");
  event.set_message("one\ntwo");
  EXPECT_EQ(RenderEvent(event), "  RUNNING    w0            one\n  | two");
}

TEST(RenderLive, ShowsHowFastAWorkerGetsItsFiles) {
  JobProgress progress;
  progress.Apply(JobUpdate(v1::Job::STATE_STARTING), kStart);
  v1::WatchJobResponse update;
  update.mutable_activity()->set_worker(0);
  update.mutable_activity()->mutable_activity()->set_phase(v1::PHASE_PREPARING);
  update.mutable_activity()->mutable_activity()->set_bytes_done(1 << 20);
  progress.Apply(update, kStart);
  EXPECT_THAT(absl::StrJoin(RenderLive(progress, {}, kStart), "\n"), HasSubstr("w0          preparing 1.0 MiB, 0 B/s"));
}

v1::Forecast TwoStages() {
  v1::Forecast forecast;
  forecast.set_step_seconds(0.0125);
  forecast.set_bubble_share(0.2);
  for (const double busy : {0.9, 0.7}) {
    forecast.add_stages()->set_busy_share(busy);
    forecast.mutable_stages()->rbegin()->set_peak_saved_bytes(2048);
  }
  return forecast;
}

v1::StepMetrics MeasuredStep(double seconds, double busy, int64_t bytes) {
  v1::StepMetrics step;
  step.set_step_seconds(seconds);
  step.set_bubble_share(1 - busy);
  for (const double share : {busy, busy / 2}) step.add_stage_busy(share);
  for (const int64_t saved : {bytes, 2 * bytes}) step.add_stage_peak_saved_bytes(saved);
  return step;
}

TEST(RenderForecast, PutsMediansWithoutTheFirstStepBesideIt) {
  const std::string text = RenderForecast(TwoStages(), {MeasuredStep(9, 0.1, 1), MeasuredStep(0.013, 0.8, 1024),
                                                        MeasuredStep(0.014, 0.6, 3072), MeasuredStep(0.5, 0.7, 2048)});
  EXPECT_EQ(text,
            "predicted a step of 12.5 ms, bubble 20%; measured 14.0 ms, 30%\n"
            "STAGE  BUSY  MEASURED  PEAK SAVED  MEASURED\n"
            "    0   90%       70%     2.0 KiB   2.0 KiB\n"
            "    1   70%       35%     2.0 KiB   4.0 KiB\n");
}

TEST(RenderForecast, StandsAloneBeforeAStepIsMeasured) {
  const std::string text = RenderForecast(TwoStages(), {});
  EXPECT_THAT(text, HasSubstr("predicted a step of 12.5 ms, bubble 20%\n"));
  EXPECT_THAT(text, HasSubstr("    1   70%               2.0 KiB"));
  v1::StepMetrics of_three_stages = MeasuredStep(1, 1, 1);
  of_three_stages.add_stage_busy(1);
  EXPECT_EQ(RenderForecast(TwoStages(), {of_three_stages}), text);
}

}  // namespace
}  // namespace gpipe::client
