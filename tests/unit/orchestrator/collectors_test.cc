#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "orchestrator/scheduling/cycle_collector.h"
#include "orchestrator/scheduling/failure.h"
#include "orchestrator/scheduling/rendezvous_board.h"
#include "orchestrator/scheduling/step_collector.h"
#include "orchestrator/scheduling/watch_queue.h"

namespace gpipe::orchestrator {
namespace {

using testing::ElementsAre;
using testing::HasSubstr;
using testing::IsEmpty;
using testing::SizeIs;

v1::Plan TwoStages(int64_t steps) {
  v1::Plan plan;
  plan.add_stages()->set_layer_count(2);
  plan.add_stages()->set_layer_count(1);
  plan.add_stage_worker(0);
  plan.add_stage_worker(1);
  plan.mutable_timeline()->set_steps(steps);
  plan.mutable_timeline()->set_batch_size(10);
  plan.add_programs()->set_batch_size(10);
  return plan;
}

v1::RoundDone Report(int64_t round, int stage, double wall_seconds, double busy_seconds) {
  v1::RoundDone done;
  done.set_round(round);
  done.set_step(round);
  done.set_samples(10);
  done.set_wall_nanos(static_cast<int64_t>(wall_seconds * 1e9));
  v1::StageReport& time = *done.add_stages();
  time.set_stage(stage);
  time.set_busy_nanos(static_cast<int64_t>(busy_seconds * 1e9));
  time.set_peak_saved_bytes(100 * (stage + 1));
  return done;
}

TEST(StepCollectorTest, AStepIsCompleteWhenEveryWorkerReportedIt) {
  const v1::Plan plan = TwoStages(10);
  StepCollector collector(plan, 2);
  v1::RoundDone first = Report(0, 0, 2, 1);
  for (const double squares : {4, 5}) first.mutable_stages(0)->add_layer_grad_squares(squares);
  EXPECT_EQ(*collector.Add(0, first), std::nullopt);
  v1::RoundDone last = Report(0, 1, 1, 0.5);
  last.set_loss(2.5);
  last.set_lr(0.1);
  last.mutable_stages(0)->add_layer_grad_squares(16);
  auto step = *collector.Add(1, last);
  ASSERT_TRUE(step.has_value());
  EXPECT_EQ(step->step(), 1);
  EXPECT_EQ(step->loss(), 2.5);
  EXPECT_DOUBLE_EQ(step->grad_norm(), 5);
  EXPECT_DOUBLE_EQ(step->step_seconds(), 2);
  EXPECT_DOUBLE_EQ(step->samples_per_second(), 5);
  EXPECT_DOUBLE_EQ(step->bubble_share(), 1 - 1.5 / 4);
  EXPECT_THAT(step->stage_busy(), ElementsAre(0.5, 0.25));
  EXPECT_THAT(step->stage_peak_saved_bytes(), ElementsAre(100, 200));
}

TEST(StepCollectorTest, WhatAGpusAllocatorHadAtMostIsTold) {
  const v1::Plan plan = TwoStages(10);
  StepCollector collector(plan, 2);
  v1::RoundDone last = Report(0, 1, 1, 1);
  last.set_lr(0.1);
  last.mutable_stages(0)->set_peak_allocated_bytes(70);
  last.mutable_stages(0)->set_peak_reserved_bytes(80);
  ASSERT_TRUE(collector.Add(1, last).ok());
  const auto step = *collector.Add(0, Report(0, 0, 1, 1));
  ASSERT_TRUE(step.has_value());
  EXPECT_THAT(step->stage_peak_allocated_bytes(), ElementsAre(0, 70));
  EXPECT_THAT(step->stage_peak_reserved_bytes(), ElementsAre(0, 80));
}

// In fp16, where its gradients overflowed.
TEST(StepCollectorTest, AStepThatWasLeftOutIsOneAllTheSame) {
  const v1::Plan plan = TwoStages(10);
  StepCollector collector(plan, 2);
  EXPECT_EQ(*collector.Add(0, Report(0, 0, 2, 1)), std::nullopt);
  v1::RoundDone last = Report(0, 1, 1, 0.5);
  last.set_lr(0.1);
  const auto step = *collector.Add(1, last);
  ASSERT_TRUE(step.has_value());
  EXPECT_EQ(step->step(), 1);
  EXPECT_FALSE(step->has_loss());
  EXPECT_FALSE(step->has_grad_norm());
}

TEST(StepCollectorTest, RoundsThatAreNoStepsGiveNone) {
  const v1::Plan plan = TwoStages(10);
  StepCollector collector(plan, 2);
  EXPECT_EQ(*collector.Add(0, Report(0, 0, 1, 1)), std::nullopt);
  EXPECT_EQ(*collector.Add(1, Report(0, 1, 1, 1)), std::nullopt);
}

TEST(StepCollectorTest, RefusesRepeatsAndForeignStages) {
  const v1::Plan plan = TwoStages(10);
  StepCollector collector(plan, 2);
  ASSERT_TRUE(collector.Add(0, Report(3, 0, 1, 1)).ok());
  EXPECT_FALSE(collector.Add(0, Report(3, 0, 1, 1)).ok());
  EXPECT_FALSE(collector.Add(0, Report(4, 1, 1, 1)).ok());
  EXPECT_FALSE(collector.Add(0, Report(4, 7, 1, 1)).ok());
  EXPECT_FALSE(collector.Add(0, Report(4, -1, 1, 1)).ok());
  v1::RoundDone too_many_layers = Report(4, 0, 1, 1);
  for (int i = 0; i < 3; ++i) too_many_layers.mutable_stages(0)->add_layer_grad_squares(1);
  EXPECT_FALSE(collector.Add(0, too_many_layers).ok());
}

TEST(StepCollectorTest, InferenceCountsMiniBatches) {
  const v1::Plan plan = TwoStages(0);
  StepCollector collector(plan, 2);
  ASSERT_TRUE(collector.Add(0, Report(7, 0, 1, 2)).ok());
  auto step = *collector.Add(1, Report(7, 1, 1, 2));
  ASSERT_TRUE(step.has_value());
  EXPECT_EQ(step->step(), 8);
  EXPECT_EQ(step->bubble_share(), 0);
}

v1::ActionDone Did(int64_t round, int cycle, int stage) {
  v1::ActionDone action;
  action.set_round(round);
  action.set_cycle(cycle);
  action.set_stage(stage);
  return action;
}

TEST(CycleCollectorTest, GivesCyclesThatAllWorkersCompleted) {
  CycleCollector collector;
  collector.Add(0, Did(0, 0, 0));
  EXPECT_THAT(collector.Take(10), IsEmpty());
  collector.Start(1);
  collector.Add(0, Did(0, 0, 0));
  collector.Add(1, Did(0, 1, 0));
  collector.Add(1, Did(0, 1, 1));
  collector.Add(2, Did(0, 2, 1));
  auto cycles = collector.Take(2);
  ASSERT_THAT(cycles, SizeIs(1));
  EXPECT_EQ(cycles[0].cycle(), 1);
  EXPECT_THAT(cycles[0].actions(), SizeIs(2));
  collector.Stop();
  EXPECT_THAT(collector.Take(10), IsEmpty());
}

TEST(RendezvousBoardTest, ValuesReachThoseWhoAskedBeforeAndAfter) {
  RendezvousBoard board;
  std::vector<int> waiting;
  EXPECT_EQ(board.Get("k", 2), nullptr);
  EXPECT_EQ(board.Get("k", 1), nullptr);
  ASSERT_TRUE(board.Put("k", "v", waiting).ok());
  EXPECT_THAT(waiting, ElementsAre(1, 2));
  EXPECT_EQ(*board.Get("k", 0), "v");
  EXPECT_TRUE(absl::IsAlreadyExists(board.Put("k", "w", waiting)));
  EXPECT_TRUE(absl::IsResourceExhausted(board.Put("large", std::string(1 << 20, 'x'), waiting)));
}

TEST(RendezvousBoardTest, HoldsNoMoreThanAllWorkersNeed) {
  RendezvousBoard board;
  std::vector<int> waiting;
  const std::string value(RendezvousBoard::kMaxValueBytes, 'x');
  size_t put = 0;
  while (put < RendezvousBoard::kMaxKeys && board.Put(std::to_string(put), value, waiting).ok()) ++put;
  EXPECT_LE(put * value.size(), RendezvousBoard::kMaxBytes);
  EXPECT_TRUE(absl::IsResourceExhausted(board.Put("one more", value, waiting)));
  EXPECT_TRUE(board.Put("small", "v", waiting).ok());
}

v1::Activity At(v1::Phase phase, int64_t step, int micro_batch) {
  v1::Activity activity;
  activity.set_phase(phase);
  activity.set_step(step);
  activity.set_micro_batch(micro_batch);
  return activity;
}

TEST(FailureTest, SaysWhatTheWorkerWasDoing) {
  EXPECT_EQ(
      WorkerFailure("WORKER_LOST", "w1", 1, At(v1::PHASE_BACKWARD, 17, 3), "was lost", "connection closed").message(),
      "worker w1 (stage 1) was lost during the backward of micro-batch 3 in step 17: connection closed");
  EXPECT_EQ(WorkerFailure("WORKER_LOST", "w1", 1, At(v1::PHASE_JOINING, -1, -1), "was lost", "why").message(),
            "worker w1 (stage 1) was lost while joining its peers: why");
  EXPECT_EQ(Doing(At(v1::PHASE_CHECKPOINT, 20, -1)), "checkpoint after step 20");
}

TEST(FailureTest, TranslatesStatuses) {
  EXPECT_EQ(FailureCode(absl::ResourceExhaustedError("writing x: disk full")), "DISK_FULL");
  EXPECT_EQ(FailureCode(absl::ResourceExhaustedError("out of memory on cuda:0")), "OUT_OF_MEMORY");
  EXPECT_EQ(FailureCode(absl::NotFoundError("x")), "MISSING_FILE");
  EXPECT_EQ(FailureCode(absl::InvalidArgumentError("x")), "INVALID_SPEC");
  EXPECT_EQ(FailureCode(absl::OutOfRangeError("the loss is nan")), "NOT_FINITE");
  EXPECT_EQ(FailureCode(absl::InternalError("x")), "INTERNAL");
}

JobUpdate Step(int64_t number) {
  auto update = std::make_shared<v1::WatchJobResponse>();
  update->mutable_step()->set_step(number);
  update->set_resume_token(std::to_string(number));
  return update;
}
JobUpdate State(v1::Job::State state) {
  auto update = std::make_shared<v1::WatchJobResponse>();
  update->mutable_job()->set_state(state);
  return update;
}

// Reads all there is; the end is its status.
struct Reader {
  void ReadAll(WatchQueue& queue) {
    bool more = true;
    while (more) {
      more = false;
      queue.Next([&](const JobUpdate& update, const absl::Status& status) {
        if (update != nullptr) {
          updates.push_back(*update);
          more = true;
        } else {
          end = status;
        }
      });
    }
  }
  std::vector<v1::WatchJobResponse> updates;
  std::optional<absl::Status> end;
};

TEST(WatchQueueTest, ASlowWatcherMissesTheOldestStepsAndIsTold) {
  WatchQueue queue({});
  queue.Push(State(v1::Job::STATE_RUNNING));
  for (size_t i = 0; i < WatchQueue::kMaxUpdates + 10; ++i) queue.Push(Step(static_cast<int64_t>(i)));
  queue.Push(State(v1::Job::STATE_SUCCEEDED));
  queue.Close(absl::OkStatus());
  Reader reader;
  reader.ReadAll(queue);
  ASSERT_TRUE(reader.end.has_value());
  EXPECT_TRUE(reader.end->ok());
  ASSERT_LE(reader.updates.size(), WatchQueue::kMaxUpdates + 1);
  EXPECT_EQ(reader.updates[0].job().state(), v1::Job::STATE_RUNNING);
  ASSERT_EQ(reader.updates[1].update_case(), v1::WatchJobResponse::kDropped);
  EXPECT_EQ(reader.updates[2].step().step(), reader.updates[1].dropped());
  // Whoever comes back with the token of the gap goes on behind it.
  EXPECT_EQ(reader.updates[1].resume_token(), std::to_string(reader.updates[1].dropped() - 1));
  EXPECT_EQ(reader.updates.back().job().state(), v1::Job::STATE_SUCCEEDED);
  EXPECT_EQ(reader.updates[1].dropped() + static_cast<int64_t>(reader.updates.size()) - 3,
            static_cast<int64_t>(WatchQueue::kMaxUpdates) + 10);
}

TEST(WatchQueueTest, AWatcherThatMissesWhatCannotBeDroppedIsEnded) {
  WatchQueue queue({});
  for (size_t i = 0; i < WatchQueue::kMaxRetained + 10; ++i) queue.Push(State(v1::Job::STATE_RUNNING));
  EXPECT_TRUE(queue.closed());
  Reader reader;
  reader.ReadAll(queue);
  EXPECT_TRUE(absl::IsResourceExhausted(*reader.end));
}

TEST(WatchQueueTest, AWaitingWatcherIsServedByThePush) {
  WatchQueue queue({});
  std::optional<int64_t> seen;
  queue.Next([&](const JobUpdate& update, const absl::Status&) {
    if (update != nullptr) seen = update->step().step();
  });
  EXPECT_EQ(seen, std::nullopt);
  queue.Push(Step(7));
  EXPECT_EQ(seen, 7);
}

TEST(WatchQueueTest, OnlyWhoAsksGetsCyclesAndStages) {
  auto stages = std::make_shared<v1::WatchJobResponse>();
  stages->mutable_stages()->set_step(1);
  auto cycle = std::make_shared<v1::WatchJobResponse>();
  cycle->mutable_cycle()->set_cycle(1);
  WatchQueue plain({}), asks({.cycles = true, .stages = true});
  for (WatchQueue* queue : {&plain, &asks}) {
    queue->Prime({stages});
    queue->Push(cycle);
    queue->Push(stages);
    queue->Close(absl::OkStatus());
  }
  Reader nothing, all;
  nothing.ReadAll(plain);
  all.ReadAll(asks);
  EXPECT_THAT(nothing.updates, IsEmpty());
  EXPECT_THAT(all.updates, SizeIs(3));
}

TEST(WatchQueueTest, WhatWasMissedIsNeverDroppedAndComesFirst) {
  WatchQueue queue({});
  std::vector<JobUpdate> missed;
  for (size_t i = 0; i < 2 * WatchQueue::kMaxUpdates; ++i) missed.push_back(Step(static_cast<int64_t>(i)));
  queue.Prime(missed);
  queue.Push(Step(9999));
  queue.Close(absl::OkStatus());
  Reader reader;
  reader.ReadAll(queue);
  ASSERT_THAT(reader.updates, SizeIs(missed.size() + 1));
  EXPECT_EQ(reader.updates.front().step().step(), 0);
  EXPECT_EQ(reader.updates.back().step().step(), 9999);
}

TEST(WatchQueueTest, AbandoningEndsTheWait) {
  WatchQueue queue({});
  std::optional<absl::Status> end;
  queue.Next([&](const JobUpdate&, const absl::Status& status) { end = status; });
  queue.Abandon();
  ASSERT_TRUE(end.has_value());
  EXPECT_TRUE(absl::IsCancelled(*end));
  queue.Push(Step(1));
}

}  // namespace
}  // namespace gpipe::orchestrator
