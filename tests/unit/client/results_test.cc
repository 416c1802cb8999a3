#include "client/api/results.h"

#include <cmath>
#include <fstream>

#include "client/cli/job_output.h"
#include "client/cli/spec_commands.h"
#include "common/artifacts/layout.h"
#include "common/file.h"
#include "common/plan/shape.h"
#include "common/sha256.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "tests/unit/client/fake_orchestrator.h"
#include "tests/unit/client/plans.h"

namespace gpipe::client {
namespace {

using testing::HasSubstr;

TEST(MetricsLine, HasNumbersAndLeavesOutWhatIsNotThere) {
  v1::StepMetrics step;
  EXPECT_EQ(
      MetricsLine(step),
      R"({"step":0,"epoch":0,"step_seconds":0.0,"samples_per_second":0.0,"bubble_share":0.0,"data_wait_share":0.0})");
  step.set_step(int64_t{1} << 40);
  step.set_epoch(2);
  step.set_loss(0.1);
  step.set_lr(0.05);
  step.set_grad_norm(1.5);
  step.set_step_seconds(0.25);
  step.set_samples_per_second(256);
  step.set_bubble_share(0.5);
  EXPECT_EQ(MetricsLine(step),
            R"({"step":1099511627776,"epoch":2,"loss":0.1,"lr":0.05,"grad_norm":1.5,)"
            R"("step_seconds":0.25,"samples_per_second":256.0,"bubble_share":0.5,"data_wait_share":0.0})");
}

TEST(MetricsLine, KeepsEveryBitOfALoss) {
  v1::StepMetrics step;
  step.set_loss(std::nextafter(0.1, 1.0));
  EXPECT_THAT(MetricsLine(step), HasSubstr("0.10000000000000002"));
}

TEST(EvaluationLine, HasAccuracyOnlyWhenMeasured) {
  v1::EvaluationMetrics evaluation;
  evaluation.set_step(50);
  evaluation.set_loss(0.5);
  evaluation.set_samples(360);
  EXPECT_EQ(EvaluationLine(evaluation), R"({"step":50,"loss":0.5,"samples":360})");
  evaluation.set_accuracy(0.75);
  EXPECT_EQ(EvaluationLine(evaluation), R"({"step":50,"loss":0.5,"accuracy":0.75,"samples":360})");
}

class PullTest : public testing::Test {
 protected:
  PullTest() : folder_(TemporaryFolder::Create("gpipe-pull-test").value()) { job_.set_id("job-1"); }
  void AddResult(const std::string& path, const std::string& content) {
    v1::ResultFile& file = *job_.add_results();
    file.set_path(path);
    *file.mutable_artifact() = fake_.AddArtifact(content);
  }
  absl::Status Pull() { return PullResults(client_, job_, out()); }
  std::filesystem::path out() const { return folder_.path() / "out"; }
  std::string Read(const std::string& name) const { return ReadFile(out() / name).value_or("(missing)"); }

  TemporaryFolder folder_;
  FakeOrchestrator fake_;
  ClusterClient client_{{.address = fake_.address()}};
  v1::Job job_;
};

TEST_F(PullTest, WritesMetricsJobAndFilesInTheirFolders) {
  v1::ListJobMetricsResponse metrics;
  metrics.add_steps()->set_step(1);
  metrics.add_steps()->set_step(2);
  metrics.add_evaluations()->set_step(2);
  fake_.SetMetrics(metrics);
  AddResult("model.safetensors", "model");
  AddResult("checkpoints/20/manifest.json", "manifest");
  ASSERT_TRUE(Pull().ok());
  EXPECT_THAT(Read("metrics.jsonl"), testing::MatchesRegex("\\{\"step\":1.*\n\\{\"step\":2.*\n"));
  EXPECT_THAT(Read("evaluation.jsonl"), HasSubstr("\"step\":2"));
  EXPECT_EQ(Read("model.safetensors"), "model");
  EXPECT_EQ(Read("checkpoints/20/manifest.json"), "manifest");
  EXPECT_THAT(Read("job.json"), HasSubstr("\"id\": \"job-1\""));
}

TEST_F(PullTest, ReplacesItsFilesAndLeavesOthers) {
  std::filesystem::create_directory(out());
  for (const char* name : {"evaluation.jsonl", "metrics.jsonl", "mine.txt"}) std::ofstream(out() / name) << "old";
  ASSERT_TRUE(Pull().ok());
  EXPECT_EQ(Read("metrics.jsonl"), "");
  EXPECT_EQ(Read("evaluation.jsonl"), "(missing)");  // It would pass for this job's.
  EXPECT_EQ(Read("mine.txt"), "old");
}

TEST_F(PullTest, OnlyAJobThatSucceededRemovesAnEarlierModel) {
  std::filesystem::create_directories(out() / "checkpoints");
  for (const char* name : {"model.safetensors", "outputs.safetensors", "checkpoints/mine"}) {
    std::ofstream(out() / name) << "old";
  }
  job_.set_state(v1::Job::STATE_FAILED);
  ASSERT_TRUE(Pull().ok());
  EXPECT_EQ(Read("model.safetensors"), "old");
  job_.set_state(v1::Job::STATE_SUCCEEDED);
  AddResult("outputs.safetensors", "new");
  ASSERT_TRUE(Pull().ok());
  EXPECT_EQ(Read("model.safetensors"), "(missing)");
  EXPECT_EQ(Read("outputs.safetensors"), "new");
  EXPECT_EQ(Read("checkpoints/mine"), "old");
}

TEST_F(PullTest, ShardsOfAnEarlierJobGoAndTheUsersOwnStay) {
  job_.set_state(v1::Job::STATE_SUCCEEDED);
  AddResult("model-00001-of-00001.safetensors", "old");
  AddResult("model.safetensors.index.json", "old");
  AddResult("checkpoints/20/model.safetensors.index.json", "old");
  AddResult("checkpoints/10/model.safetensors.index.json", "old");
  ASSERT_TRUE(Pull().ok());
  std::ofstream(out() / "model-00001-of-00002.safetensors") << "mine";
  job_.clear_results();
  AddResult("model.safetensors", "new");
  AddResult("checkpoints/20/model.safetensors", "new");
  ASSERT_TRUE(Pull().ok());
  EXPECT_EQ(Read("model.safetensors"), "new");
  EXPECT_EQ(Read("model-00001-of-00001.safetensors"), "(missing)");
  EXPECT_EQ(Read("model.safetensors.index.json"), "(missing)");
  EXPECT_EQ(Read("checkpoints/20/model.safetensors.index.json"), "(missing)");
  EXPECT_EQ(Read("checkpoints/10/model.safetensors.index.json"), "old");
  EXPECT_EQ(Read("model-00001-of-00002.safetensors"), "mine");
}

TEST_F(PullTest, AManifestComesOnlyAfterWhatItDescribes) {
  AddResult("checkpoints/20/manifest.json", "manifest");
  v1::ResultFile& lost = *job_.add_results();
  lost.set_path("checkpoints/20/model.safetensors");
  lost.mutable_artifact()->set_sha256(std::string(64, '0'));
  EXPECT_TRUE(absl::IsNotFound(Pull()));
  EXPECT_EQ(Read("checkpoints/20/manifest.json"), "(missing)");
}

TEST_F(PullTest, WhatLiesOnThisMachineIsNotFetched) {
  const std::filesystem::path artifacts = folder_.path() / "artifacts";
  Sha256 hash;
  hash.Update("weights");
  v1::ResultFile& file = *job_.add_results();  // Which the orchestrator does not send.
  file.set_path("model.safetensors");
  file.mutable_artifact()->set_sha256(hash.HexDigest());
  file.mutable_artifact()->set_size(7);
  const std::filesystem::path content = ArtifactPath(artifacts, file.artifact().sha256());
  std::filesystem::create_directories(content.parent_path());
  std::ofstream(content) << "weights";
  ASSERT_TRUE(PullResults(client_, job_, out(), {.artifacts = artifacts}).ok());
  EXPECT_EQ(Read("model.safetensors"), "weights");

  std::ofstream(content) << "torn";
  EXPECT_TRUE(absl::IsNotFound(PullResults(client_, job_, out(), {.artifacts = artifacts}))) << "it is fetched";
}

TEST_F(PullTest, ANameThatLeadsOutOfTheFolderIsRefused) {
  for (const char* path : {"../evil", "/tmp/evil", "a/../../evil", ""}) {
    job_.clear_results();
    AddResult(path, "evil");
    EXPECT_TRUE(absl::IsDataLoss(Pull())) << path;
  }
  EXPECT_FALSE(std::filesystem::exists(folder_.path() / "evil"));
}

TEST_F(PullTest, AFolderThatCannotBeMadeIsAnError) {
  std::ofstream(out()) << "a file";
  EXPECT_FALSE(PrepareFolder(out()).ok());
}

TEST(RenderPlan, ShowsStagesBoundariesGridAndBubble) {
  v1::PlanJobResponse response;
  v1::Plan& plan = *response.mutable_plan();
  for (const int64_t parameters : {2099200, 0, 2098176}) {
    v1::LayerInfo& layer = *plan.add_layers();
    layer.set_kind(parameters > 0 ? "linear" : "relu");
    layer.set_parameter_count(parameters);
    layer.set_parameter_bytes(4 * parameters);
  }
  plan.add_stages()->set_layer_count(2);
  v1::Stage& second = *plan.add_stages();
  second.set_first_layer(2);
  second.set_layer_count(1);
  for (const int worker : {0, 1}) plan.add_stage_worker(worker);
  v1::Edge& edge = *plan.add_edges();
  edge.set_value("layer.1");
  edge.set_to_stage(1);
  *edge.mutable_shape() = BatchShape({2048});
  edge.set_dtype(v1::DATA_TYPE_FLOAT32);
  v1::Program& program = *plan.add_programs();
  program.set_kind(v1::PROGRAM_KIND_INFER);
  program.set_batch_size(15);
  for (const int size : {8, 7}) program.add_micro_batch_sizes(size);
  program.set_cycles(3);
  response.set_grid("w0  F0  F1  .\nw1  .   F0  F1\n");
  response.set_bubble_share(1.0 / 3);
  EXPECT_EQ(RenderPlan(response),
            "STAGE  WORKER  LAYERS  PARAMETERS  WEIGHTS     SENDS  KINDS\n"
            "    0       0     0-1   2,099,200  8.0 MiB  64.0 KiB  linear, relu\n"
            "    1       1       2   2,098,176  8.0 MiB       0 B  linear\n"
            "\n"
            "VALUE    STAGES  SHAPE      TYPE     PER MICRO-BATCH  GRADIENT\n"
            "layer.1  0 -> 1  [B, 2048]  float32         64.0 KiB  no\n"
            "\n"
            "a mini-batch of 15 in 2 micro-batches of 8 7, 3 clock cycles:\n"
            "w0  F0  F1  .\n"
            "w1  .   F0  F1\n"
            "bubble 33%\n");
}

TEST(RenderPlan, OfAnExportedModelTheModulesAreShown) {
  v1::PlanJobResponse response;
  v1::Plan& plan = *response.mutable_plan();
  for (const char* module : {"wte", "", "h.0.mlp", "h.1.mlp"}) {
    v1::LayerInfo& layer = *plan.add_layers();
    layer.set_kind(module);
    layer.set_first_node(plan.layers_size() * 3 - 3);
  }
  plan.add_stages()->set_layer_count(3);
  v1::Stage& second = *plan.add_stages();
  second.set_first_layer(3);
  second.set_layer_count(1);
  const std::string text = RenderPlan(response);
  EXPECT_THAT(text, testing::HasSubstr("MODULES"));
  EXPECT_THAT(text, testing::HasSubstr("wte to h.0.mlp"));
  EXPECT_THAT(text, testing::HasSubstr("h.1.mlp\n"));
}

TEST(RenderPlan, WhatWasForeseenSkippedAndTiedIsShown) {
  const std::string text = RenderPlan(ExportedPlan());
  EXPECT_THAT(text, testing::HasSubstr("PARAMETERS   WEIGHTS   MEMORY  PER MICRO-BATCH    SENDS  MODULES\n"));
  EXPECT_THAT(text, testing::HasSubstr("  5.0 MiB             3 ms"));
  EXPECT_THAT(text, testing::HasSubstr("0 -> 2 skip"));
  EXPECT_THAT(text, testing::Not(testing::HasSubstr("0 -> 1 skip")));
  EXPECT_THAT(text, testing::HasSubstr("tied: wte.weight = head.weight on stages 0, 2\n"));
  EXPECT_THAT(text, testing::HasSubstr("predicted 42 ms a step, 31% of it bubble\n"));
}

TEST(RenderJob, DescribesAFailure) {
  v1::Job job;
  job.set_id("digits-a1b2c3");
  job.set_state(v1::Job::STATE_FAILED);
  job.mutable_failure()->set_code("WORKER_LOST");
  job.mutable_failure()->set_worker("w1");
  job.mutable_failure()->set_stage(1);
  job.mutable_failure()->add_consequences("w0: connection closed");
  EXPECT_EQ(RenderJob(job),
            "id           digits-a1b2c3\n"
            "state        FAILED\n"
            "failure      WORKER_LOST\n"
            "  worker     w1, stage 1\n"
            "  then       w0: connection closed\n");
}

TEST(RenderJob, TellsOfRestarts) {
  v1::Job job;
  job.set_state(v1::Job::STATE_QUEUED);
  job.mutable_spec()->set_max_restarts(3);
  job.set_restarts(2);
  job.mutable_last_failure()->set_code("WORKER_LOST");
  job.mutable_last_failure()->set_step(12);
  EXPECT_EQ(RenderJob(job),
            "state        QUEUED\n"
            "restarts     2 of 3\n"
            "restarted    WORKER_LOST\n"
            "  step       12\n");
}

TEST(RenderJob, TellsWhoSubmittedIt) {
  v1::ListJobsResponse jobs;
  jobs.add_jobs()->set_id("a");
  EXPECT_THAT(RenderJobs(jobs), testing::Not(testing::HasSubstr("BY")));
  jobs.add_jobs()->set_submitted_by("anna");
  EXPECT_THAT(RenderJobs(jobs), testing::StartsWith("ID  BY    STATE"));
  EXPECT_THAT(RenderJob(jobs.jobs(1)), testing::HasSubstr("by           anna\n"));
}

}  // namespace
}  // namespace gpipe::client
