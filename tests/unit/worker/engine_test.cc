#include "worker/engine/engine.h"

#include <algorithm>
#include <cmath>

#include "absl/strings/str_cat.h"
#include "common/artifacts/file_hash.h"
#include "common/artifacts/parts.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "tests/unit/worker/test_cluster.h"

namespace gpipe::worker {
namespace {

using testing::ElementsAre;
using testing::HasSubstr;

const Cut kWhole = {{7}, {0}};
const Cut kTwo = {{3, 4}, {0, 1}};
const Cut kThree = {{2, 2, 3}, {0, 1, 2}};

std::vector<Cut> AllCuts() {
  return {kTwo,
          kThree,
          {{1, 2, 2, 2}, {0, 1, 2, 3}},
          {{2, 2, 3}, {0, 0, 1}},
          {{1, 2, 2, 2}, {0, 0, 1, 1}},
          {{2, 5}, {0, 0}}};
}

class EngineCuts : public testing::TestWithParam<v1::Checkpoint> {};

TEST_P(EngineCuts, LossCurveAndParametersAreTheSameBits) {
  const v1::JobSpec spec = TrainingSpec(/*steps=*/10, GetParam());
  const TrainingResult whole = Train(spec, kWhole);
  ASSERT_EQ(whole.losses.size(), 10u);
  EXPECT_EQ(whole.evaluations.size(), 3u) << "after steps 4, 8 and 10";
  EXPECT_EQ(whole.parameters.size(), 6u);
  for (const std::vector<double>& layers : whole.grad_squares) EXPECT_EQ(layers.size(), 7u);
  for (const Cut& cut : AllCuts()) {
    const TrainingResult result = Train(spec, cut);
    EXPECT_EQ(result.losses, whole.losses);
    EXPECT_EQ(result.grad_squares, whole.grad_squares);
    EXPECT_EQ(result.rates, whole.rates);
    EXPECT_EQ(result.evaluations, whole.evaluations);
    EXPECT_EQ(result.parameters, whole.parameters);
  }
}

INSTANTIATE_TEST_SUITE_P(Checkpoints, EngineCuts,
                         testing::Values(v1::CHECKPOINT_ALWAYS, v1::CHECKPOINT_EXCEPT_LAST, v1::CHECKPOINT_NEVER));

TEST(Engine, TheThreeCheckpointModesGiveTheSameBits) {
  const TrainingResult never = Train(TrainingSpec(6, v1::CHECKPOINT_NEVER), kThree);
  for (v1::Checkpoint mode : {v1::CHECKPOINT_ALWAYS, v1::CHECKPOINT_EXCEPT_LAST}) {
    const TrainingResult result = Train(TrainingSpec(6, mode), kThree);
    EXPECT_EQ(result.losses, never.losses);
    EXPECT_EQ(result.parameters, never.parameters);
  }
}

// Nine stages of worker 0 take turns, so that the eight skips of nine micro-batches are sent before worker 1 gets the
// other value that it needs for the first of them.
TEST(Engine, ManySkipsPastTheStagesOfAWorkerDoNotHoldUpItsOtherMessages) {
  v1::JobSpec spec = TrainingSpec(3, v1::CHECKPOINT_ALWAYS);
  *spec.mutable_model() = ModelWithSkips(/*skips=*/8, /*between=*/8);
  spec.mutable_pipeline()->set_chunks(10);
  const TrainingResult whole = Train(spec, {{26}, {0}});
  const TrainingResult cut = Train(spec, {{9, 1, 1, 1, 1, 1, 1, 1, 1, 9}, {0, 0, 0, 0, 0, 0, 0, 0, 0, 1}});
  ASSERT_EQ(whole.losses.size(), 3u);
  EXPECT_THAT(cut.losses, testing::Pointwise(testing::DoubleNear(1e-5), whole.losses));  // Nine gradients are added up.
}

TEST(Engine, AnActionOfAnUnknownKindIsRefused) {
  const v1::JobSpec spec = TrainingSpec(1, v1::CHECKPOINT_ALWAYS);
  v1::Plan plan = MakePlan(spec, kTwo);
  plan.mutable_programs(0)->mutable_rows(1)->mutable_actions(0)->set_kind(static_cast<v1::ActionKind>(99));
  TestCluster cluster(2);
  cluster.Prepare(spec, plan, 2, {});
  EXPECT_THAT(cluster.WaitForFailure(1).status().message(), HasSubstr("an action of an unknown kind (99)"));
  cluster.Abort("worker 1 failed");
  for (int worker = 0; worker < 2; ++worker) cluster.WaitForReleased(worker);
}

TEST(Engine, ReportsTimesAndMemoryOfEachRound) {
  TestCluster cluster(2);
  cluster.Prepare(TrainingSpec(2, v1::CHECKPOINT_NEVER), kTwo);
  cluster.GrantAll();
  cluster.Finish();
  const std::vector<v1::RoundDone> rounds = cluster.Rounds(0);
  ASSERT_EQ(rounds.size(), 5u) << "two steps, the storing of the model, and an evaluation of two mini-batches";
  for (const v1::RoundDone& round : rounds) {
    ASSERT_EQ(round.stages_size(), 1);
    EXPECT_FALSE(round.has_loss());
    EXPECT_EQ(round.stages(0).busy_nanos() > 0, round.round() != 2);
    EXPECT_GE(round.wall_nanos(), round.stages(0).busy_nanos());
  }
  EXPECT_GT(rounds[0].stages(0).peak_saved_bytes(), 0);
}

TEST(Engine, TellsWhenActionsBeganAndWhatWentBetweenWorkers) {
  TestCluster cluster(2);
  cluster.Prepare(TrainingSpec(2, v1::CHECKPOINT_ALWAYS), kTwo);
  const int64_t begun = SteadyNanos();
  cluster.GrantAll();
  cluster.Finish();
  const int64_t ended = SteadyNanos();
  std::map<std::pair<int64_t, int>, std::vector<v1::ActionDone>> forwards;  // By round and micro-batch.
  for (int worker = 0; worker < 2; ++worker) {
    int64_t free = begun;
    for (const v1::ActionDone& action : cluster.Actions(worker)) {
      EXPECT_GE(action.start_nanos(), free) << action.ShortDebugString();
      free = action.start_nanos() + action.nanos();
      if (action.kind() == v1::ACTION_KIND_FORWARD) forwards[{action.round(), action.micro_batch()}].push_back(action);
    }
    EXPECT_LE(free, ended);
  }
  EXPECT_FALSE(forwards.empty());
  for (const auto& [at, both] : forwards) {
    ASSERT_EQ(both.size(), 2u);
    EXPECT_GE(both[1].start_nanos(), both[0].start_nanos() + both[0].nanos());
  }
  const v1::RoundDone first = cluster.Rounds(0)[0], second = cluster.Rounds(1)[0];
  ASSERT_EQ(first.traffic_size(), 1);
  ASSERT_EQ(second.traffic_size(), 1);
  EXPECT_EQ(first.traffic(0).worker(), 1);
  EXPECT_GT(first.traffic(0).sent_bytes(), 0);
  EXPECT_EQ(first.traffic(0).sent_bytes(), second.traffic(0).received_bytes());
  EXPECT_EQ(first.traffic(0).received_bytes(), second.traffic(0).sent_bytes());
  EXPECT_GT(first.traffic(0).wait_nanos(), 0) << "for the gradients";
  EXPECT_LE(first.traffic(0).wait_nanos() + first.stages(0).busy_nanos(), first.wall_nanos());
}

TEST(Engine, LockStepDoesNothingBeyondTheGrant) {
  const v1::JobSpec spec = TrainingSpec(1, v1::CHECKPOINT_ALWAYS);
  const v1::Plan plan = MakePlan(spec, kTwo);
  TestCluster cluster(2);
  cluster.Prepare(spec, kTwo);
  std::vector<size_t> read(2, 0);
  for (int cycle = 0; cycle < plan.programs(0).cycles(); ++cycle) {
    cluster.Grant(0, cycle);
    for (int worker = 0; worker < 2; ++worker) {
      auto reached = cluster.sink(worker).WaitFor([&](const v1::WorkerMessage& message) {
        return message.has_progress() && message.progress().round() == 0 && message.progress().cycle() == cycle;
      });
      ASSERT_TRUE(reached) << "worker " << worker << ", cycle " << cycle;
      for (const v1::WorkerMessage& message : cluster.sink(worker).messages()) {
        for (const v1::ActionDone& action : message.progress().actions()) EXPECT_LE(action.cycle(), cycle);
      }
    }
  }
  cluster.GrantAll();
  cluster.Finish();
}

TEST(Engine, LockStepGivesTheSameBits) {
  const v1::JobSpec spec = TrainingSpec(2, v1::CHECKPOINT_ALWAYS);
  const v1::Plan plan = MakePlan(spec, kTwo);
  TestCluster cluster(2);
  cluster.Prepare(spec, kTwo);
  for (int64_t round = 0; round < 5; ++round) {
    for (int cycle = 0; cycle < 32; ++cycle) cluster.Grant(round, cycle);
  }
  cluster.Finish();
  std::vector<double> losses;
  for (const v1::RoundDone& round : cluster.Rounds(1)) {
    if (round.has_loss()) losses.push_back(round.loss());
  }
  EXPECT_EQ(losses, Train(spec, kWhole).losses);
}

TEST(Engine, InferenceKeepsTheOrderOfSamplesWhateverTheCut) {
  const v1::JobSpec spec = InferenceSpec(/*samples=*/23, /*batch_size=*/5);
  std::map<std::string, std::string> whole;
  std::vector<Cut> cuts = AllCuts();
  cuts.insert(cuts.begin(), kWhole);
  for (const Cut& cut : cuts) {
    TestCluster cluster(cut.workers());
    cluster.Prepare(spec, cut);
    cluster.GrantAll();
    const auto outputs = cluster.Tensors({cluster.Finish().back().outputs()});
    ASSERT_EQ(outputs.at("output").size(), 23u * 4 * sizeof(float));
    if (whole.empty()) whole = outputs;
    EXPECT_EQ(outputs, whole);
  }
}

// The losses of steps 4 to 9 on two workers, from the checkpoint that three workers made in their files.
std::vector<double> LossesOfResumedRun(TestCluster& cluster, const v1::JobSpec& spec, int* files) {
  cluster.Prepare(spec, kThree);
  cluster.GrantAll();
  cluster.Finish();
  v1::Assignment resume;
  for (const v1::CheckpointShard& shard : cluster.Shards(4)) {
    resume.mutable_resume_model()->MergeFrom(shard.model());
    resume.mutable_resume_optimizer()->MergeFrom(shard.optimizer());
  }
  *files = resume.resume_model_size();
  v1::Plan plan = MakePlan(spec, kTwo);
  plan.mutable_timeline()->set_first_step(4);
  cluster.Prepare(spec, plan, 2, resume);
  cluster.GrantAll();
  cluster.Finish();
  std::vector<double> losses;
  for (const v1::RoundDone& round : cluster.Rounds(1)) {
    if (round.has_loss()) losses.push_back(round.loss());
  }
  return losses;
}

TEST(Engine, ResumesWithTheCurveOfAnUninterruptedRunOnAnotherCut) {
  v1::JobSpec spec = TrainingSpec(10, v1::CHECKPOINT_ALWAYS);
  spec.mutable_train()->set_checkpoint_every(4);
  const TrainingResult straight = Train(spec, kWhole);
  const std::vector<double> expected(straight.losses.begin() + 4, straight.losses.end());
  int files = 0;
  TestCluster cluster(3);
  EXPECT_EQ(LossesOfResumedRun(cluster, spec, &files), expected);
  EXPECT_EQ(files, 3);
  TestCluster in_shards(3, {}, /*max_shard_bytes=*/1);
  EXPECT_EQ(LossesOfResumedRun(in_shards, spec, &files), expected);
  EXPECT_GT(files, 3) << "a file for each tensor";
}

TEST(Engine, PartsAreLeftWhereTheOrchestratorsFolderCanBeWrittenTo) {
  const TemporaryFolder folder = *TemporaryFolder::Create("engine-test-parts");
  v1::JobSpec spec = TrainingSpec(3, v1::CHECKPOINT_ALWAYS);
  spec.mutable_train()->set_checkpoint_every(2);
  TestCluster cluster(2);
  cluster.artifacts().AllowWritingTo(folder.path());
  cluster.Prepare(spec, kTwo);
  cluster.GrantAll();
  for (const v1::Finished& finished : cluster.Finish()) {
    ASSERT_EQ(finished.model_size(), 1);
    const auto path = PartFolder(folder.path(), MakePartOf(cluster.attempt())) / finished.model(0).sha256();
    EXPECT_EQ(HashFile(path)->ref.sha256(), finished.model(0).sha256());
  }
  for (const v1::CheckpointShard& shard : cluster.Shards(2)) {
    const auto parts = PartFolder(folder.path(), MakePartOf(cluster.attempt(), 2));
    EXPECT_EQ(HashFile(parts / shard.model(0).sha256())->ref.size(), shard.model(0).size());
    EXPECT_EQ(HashFile(parts / shard.optimizer(0).sha256())->ref.size(), shard.optimizer(0).size());
  }
}

TEST(Engine, AbortWakesItWhereverItWaitsAndTheNextAttemptRuns) {
  TestCluster cluster(2);
  const v1::JobSpec spec = TrainingSpec(3, v1::CHECKPOINT_ALWAYS);
  cluster.Prepare(spec, kTwo);  // Waits for a grant.
  for (int worker = 0; worker < 2; ++worker) {
    ASSERT_TRUE(cluster.sink(worker).WaitFor([](const v1::WorkerMessage& m) { return m.has_prepared(); }));
  }
  cluster.Abort("cancelled");
  for (int worker = 0; worker < 2; ++worker) cluster.WaitForReleased(worker);
  for (int worker = 0; worker < 2; ++worker) {
    for (const v1::WorkerMessage& message : cluster.sink(worker).messages()) EXPECT_FALSE(message.has_failed());
    EXPECT_EQ(cluster.engine(worker).state(), AttemptState::kIdle);
  }
  cluster.Prepare(spec, kTwo);
  cluster.GrantAll();
  cluster.Finish();
}

TEST(Engine, AbortWakesAWorkerThatWaitsForItsPeer) {
  TestCluster cluster(2, {{0, "worker.forward=stop@2"}});  // Worker 1 waits to receive.
  cluster.Prepare(TrainingSpec(3, v1::CHECKPOINT_ALWAYS), kTwo);
  cluster.GrantAll();
  ASSERT_TRUE(cluster.sink(1).WaitFor([](const v1::WorkerMessage& m) { return m.has_prepared(); }));
  cluster.Abort("worker 0 was lost");
  cluster.WaitForReleased(0);
  cluster.WaitForReleased(1);
}

TEST(Engine, EveryFailpointNamesItsPhaseAndWakesOnAbort) {
  const std::map<std::string, v1::Phase> phases = {
      {"worker.preparing", v1::PHASE_PREPARING},   {"worker.joining", v1::PHASE_JOINING},
      {"worker.forward", v1::PHASE_FORWARD},       {"worker.backward", v1::PHASE_BACKWARD},
      {"worker.optimizer", v1::PHASE_OPTIMIZER},   {"worker.checkpoint", v1::PHASE_CHECKPOINT},
      {"worker.evaluation", v1::PHASE_EVALUATION}, {"worker.finishing", v1::PHASE_FINISHING}};
  // All but worker.measuring, which no job passes (see link_probe_test.cc), and worker.checkpoint_write, which is
  // passed beside the phases.
  ASSERT_EQ(phases.size() + 2, std::size(failpoint::kAll));
  v1::JobSpec spec = TrainingSpec(3, v1::CHECKPOINT_ALWAYS);
  spec.mutable_train()->set_checkpoint_every(2);
  for (const auto& [name, phase] : phases) {
    TestCluster failing(2, {{1, name + "=error"}});
    failing.Prepare(spec, kTwo);
    failing.GrantAll();
    const v1::Failed failed = failing.WaitForFailure(1);
    EXPECT_EQ(failed.activity().phase(), phase) << name;
    EXPECT_EQ(failed.activity().stage(), 1);
    EXPECT_FALSE(failed.consequence());
    EXPECT_THAT(failed.status().message(), HasSubstr(name));
    failing.Abort("worker 1 failed");
    failing.WaitForReleased(0);
    failing.WaitForReleased(1);
  }
}

// The third and last step's, so that only its writing can keep the workers from finishing.
v1::JobSpec SpecWithCheckpoint() {
  v1::JobSpec spec = TrainingSpec(3, v1::CHECKPOINT_ALWAYS);
  spec.mutable_train()->set_checkpoint_every(1);
  return spec;
}

TEST(Engine, TrainingGoesOnWhileACheckpointIsWritten) {
  TestCluster cluster(2, {{1, "worker.checkpoint_write=stop@1"}});
  v1::JobSpec spec = TrainingSpec(6, v1::CHECKPOINT_ALWAYS);
  spec.mutable_train()->set_checkpoint_every(4);
  cluster.Prepare(spec, kTwo);
  cluster.GrantAll();
  ASSERT_TRUE(cluster.sink(1).WaitFor([](const v1::WorkerMessage& m) {
    const auto& rounds = m.progress().rounds();
    return std::any_of(rounds.begin(), rounds.end(),
                       [](const v1::RoundDone& round) { return round.has_loss() && round.step() == 5; });
  })) << "the last step is not done";
  ASSERT_TRUE(cluster.sink(0).WaitFor([](const v1::WorkerMessage& m) { return m.has_checkpoint_shard(); }));
  EXPECT_EQ(cluster.Shards(4).size(), 1u) << "of the worker that does not stand in it";
  cluster.Abort("cancelled");
  cluster.WaitForReleased(0);
  cluster.WaitForReleased(1);
}

TEST(Engine, AJobFinishesWithAllItsCheckpointsWritten) {
  TestCluster cluster(2);
  cluster.Prepare(SpecWithCheckpoint(), kTwo);
  cluster.GrantAll();
  cluster.Finish();
  for (int64_t step : {1, 2, 3}) EXPECT_EQ(cluster.Shards(step).size(), 2u) << step;
}

TEST(Engine, ACheckpointThatCannotBeWrittenFailsTheAttempt) {
  for (const char* hit : {"1", "3"}) {  // While it trains, and when it has finished.
    TestCluster cluster(2, {{1, absl::StrCat("worker.checkpoint_write=error@", hit)}});
    cluster.Prepare(SpecWithCheckpoint(), kTwo);
    cluster.GrantAll();
    const v1::Failed failed = cluster.WaitForFailure(1);
    EXPECT_EQ(failed.status().message(),
              absl::StrCat("writing the checkpoint of step ", hit, ": failpoint worker.checkpoint_write"));
    EXPECT_FALSE(failed.consequence());
    cluster.Abort("worker 1 failed");
    cluster.WaitForReleased(0);
    cluster.WaitForReleased(1);
  }
}

TEST(Engine, APeersFailureIsAConsequence) {
  TestCluster cluster(2, {{0, "worker.forward=error@2"}});
  cluster.Prepare(TrainingSpec(3, v1::CHECKPOINT_ALWAYS), kTwo);
  cluster.GrantAll();
  EXPECT_FALSE(cluster.WaitForFailure(0).consequence());
  EXPECT_TRUE(cluster.WaitForFailure(1).consequence());
  cluster.Abort("worker 0 failed");
  cluster.WaitForReleased(0);
  cluster.WaitForReleased(1);
}

TEST(Engine, ALossThatIsNotFiniteFailsTheStep) {
  TestCluster cluster(2, {{0, "worker.forward=nan@8"}});  // The second micro-batch of step 3.
  cluster.Prepare(TrainingSpec(5, v1::CHECKPOINT_NEVER), kTwo);
  cluster.GrantAll();
  const v1::Failed failed = cluster.WaitForFailure(1);
  EXPECT_EQ(failed.status().code(), static_cast<int>(absl::StatusCode::kOutOfRange));
  EXPECT_EQ(failed.status().message(), "loss is not finite (nan) in step 3");
  EXPECT_FALSE(failed.consequence());
  cluster.Abort("nan");
  cluster.WaitForReleased(0);
  cluster.WaitForReleased(1);
}

// The receiver has made room for what the plan says: Gloo would end its process.
TEST(Engine, AValueOfAnotherShapeThanPlannedFailsItsStage) {
  const v1::JobSpec spec = TrainingSpec(1, v1::CHECKPOINT_NEVER);
  v1::Plan plan = MakePlan(spec, kTwo);
  plan.mutable_edges(0)->mutable_shape(1)->set_fixed(plan.edges(0).shape(1).fixed() - 1);
  TestCluster cluster(2);
  cluster.Prepare(spec, plan, 2, {});
  cluster.GrantAll();
  const v1::Failed failed = cluster.WaitForFailure(0);
  EXPECT_EQ(failed.status().code(), static_cast<int>(absl::StatusCode::kInvalidArgument));
  EXPECT_THAT(failed.status().message(),
              HasSubstr(" between stages 0 and 1): " + plan.edges(0).value() + " is Float ["));
  EXPECT_FALSE(failed.consequence());
  cluster.Abort("worker 0 failed");
  cluster.WaitForReleased(0);
  cluster.WaitForReleased(1);
}

// Room for what is received is made outside of any layer: that, too, ends the attempt and not the process.
TEST(Engine, RoomThatIsNotThereFailsTheAttempt) {
  const v1::JobSpec spec = TrainingSpec(1, v1::CHECKPOINT_NEVER);
  v1::Plan plan = MakePlan(spec, kTwo);
  plan.mutable_edges(0)->mutable_shape(1)->set_fixed(int64_t{1} << 50);
  TestCluster cluster(2);
  cluster.Prepare(spec, plan, 2, {});
  cluster.GrantAll();
  const v1::Failed failed = cluster.WaitForFailure(1);
  EXPECT_EQ(failed.status().code(), static_cast<int>(absl::StatusCode::kResourceExhausted));
  EXPECT_THAT(failed.status().message(), HasSubstr("out of memory"));
  EXPECT_FALSE(failed.consequence());
  cluster.Abort("worker 1 failed");
  cluster.WaitForReleased(0);
  cluster.WaitForReleased(1);
}

TEST(Engine, RefusesASecondAttemptAndMessagesOfAnotherOne) {
  TestCluster cluster(1);
  const v1::JobSpec spec = TrainingSpec(1, v1::CHECKPOINT_ALWAYS);
  cluster.Prepare(spec, kWhole);
  ASSERT_TRUE(cluster.sink(0).WaitFor([](const v1::WorkerMessage& m) { return m.has_prepared(); }));

  v1::AttemptId stale;
  stale.set_job("stale");
  v1::Assignment assignment;
  *assignment.mutable_attempt() = stale;
  cluster.engine(0).Prepare(assignment);
  auto refused = cluster.sink(0).WaitFor([](const v1::WorkerMessage& m) { return m.has_failed(); });
  ASSERT_TRUE(refused);
  EXPECT_EQ(refused->failed().attempt().job(), "stale");
  EXPECT_EQ(refused->failed().status().code(), static_cast<int>(absl::StatusCode::kFailedPrecondition));

  v1::Grant grant;
  *grant.mutable_attempt() = stale;
  grant.set_round(1000);
  cluster.engine(0).Grant(grant);
  cluster.engine(0).Abort(stale, absl::CancelledError("stale"));
  EXPECT_EQ(cluster.engine(0).state(), AttemptState::kRunning);
  EXPECT_TRUE(cluster.Rounds(0).empty());
  cluster.GrantAll();
  EXPECT_EQ(
      cluster.sink(0).WaitFor([](const v1::WorkerMessage& m) { return m.has_released(); })->released().attempt().job(),
      "stale");
  ASSERT_TRUE(cluster.sink(0).WaitFor([](const v1::WorkerMessage& m) { return m.has_finished(); }));
  cluster.engine(0).Release(cluster.attempt());
}

TEST(Engine, RefusesAPlanThatCannotBeExecuted) {
  const v1::JobSpec spec = TrainingSpec(1, v1::CHECKPOINT_NEVER);
  const v1::Plan good = MakePlan(spec, kTwo);
  std::vector<v1::Plan> bad(5, good);
  bad[0].clear_stage_worker();
  bad[1].mutable_edges(0)->set_to_stage(7);
  bad[2].clear_layers();
  bad[3].mutable_programs(0)->mutable_rows(0)->mutable_actions(0)->set_micro_batch(99);
  bad[4].mutable_programs(0)->set_batch_size(11);
  for (const v1::Plan& plan : bad) {
    TestCluster cluster(1);
    v1::Assignment assignment;
    assignment.mutable_attempt()->set_job("bad");
    *assignment.mutable_spec() = spec;
    *assignment.mutable_plan() = plan;
    cluster.engine(0).Prepare(assignment);
    EXPECT_EQ(cluster.WaitForFailure(0).status().code(), static_cast<int>(absl::StatusCode::kInvalidArgument));
  }
}

TEST(Engine, ARoundThatCannotBeFailsTheAttempt) {
  const v1::JobSpec spec = TrainingSpec(3, v1::CHECKPOINT_NEVER);
  TestCluster cluster(1);
  cluster.Prepare(spec, kWhole);
  v1::Grant grant;
  *grant.mutable_attempt() = cluster.attempt();
  grant.mutable_next()->add_rounds()->set_kind(v1::ROUND_KIND_TRAIN);
  cluster.engine(0).Grant(grant);
  const v1::Failed failed = cluster.WaitForFailure(0);
  EXPECT_EQ(failed.status().code(), static_cast<int>(absl::StatusCode::kInternal));
  EXPECT_FALSE(failed.consequence());
  cluster.Abort("a bad round");
  cluster.WaitForReleased(0);
}

TEST(Engine, AMissingFileFailsThePreparationByName) {
  v1::JobSpec spec = TrainingSpec(1, v1::CHECKPOINT_NEVER);
  spec.mutable_model()->set_weights("weights.safetensors");
  TestCluster cluster(1);
  cluster.Prepare(spec, kWhole);
  const v1::Failed failed = cluster.WaitForFailure(0);
  EXPECT_EQ(failed.status().code(), static_cast<int>(absl::StatusCode::kNotFound));
  EXPECT_THAT(failed.status().message(), HasSubstr("weights.safetensors"));
  EXPECT_EQ(failed.activity().phase(), v1::PHASE_PREPARING);
  cluster.Abort("missing file");
  cluster.WaitForReleased(0);
}

}  // namespace
}  // namespace gpipe::worker
