// The program `gpipe` itself, against a command line or a scripted orchestrator.

#include <fstream>

#include "client/api/follow.h"
#include "client/api/submission.h"
#include "client/cli/completion.h"
#include "client/cli/run_command.h"
#include "common/field_error.h"
#include "common/file.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "tests/unit/client/fake_orchestrator.h"
#include "tests/unit/client/program_runner.h"

namespace gpipe::client {
namespace {

namespace fs = std::filesystem;
using testing::HasSubstr;
using testing::Not;

v1::WatchJobResponse JobIn(v1::Job::State state) {
  v1::WatchJobResponse update;
  update.mutable_job()->set_id("job-1");
  update.mutable_job()->set_state(state);
  return update;
}

constexpr char kSpec[] =
    "name: tiny\n"
    "model:\n"
    "  sequential:\n"
    "    - linear: {in_features: 4, out_features: 4}\n"
    "    - relu: {}\n"
    "pipeline: {balance: [1, 1], chunks: 2}\n"
    "infer:\n"
    "  random_inputs: {shape: [8, 4]}\n"
    "  batch_size: 4\n";

class CliTest : public testing::Test {
 protected:
  CliTest() : folder_(TemporaryFolder::Create("gpipe-cli-test").value()) {}
  std::string Write(const std::string& name, const std::string& text) const {
    std::ofstream(folder_.path() / name) << text;
    return folder_.path() / name;
  }
  ProgramResult OnFake(const std::string& arguments) {
    return RunGpipe("--orchestrator " + fake_.address() + " " + arguments);
  }

  TemporaryFolder folder_;
  FakeOrchestrator fake_;
};

TEST_F(CliTest, HelpNamesEveryCommandAndExitCode) {
  const ProgramResult help = RunGpipe("--help");
  EXPECT_EQ(help.exit_code, 0);
  for (const char* command : {"run", "plan", "validate", "job", "data", "worker", "health", "version", "completion"}) {
    EXPECT_THAT(help.output, HasSubstr(absl::StrCat("\n  ", command, " ")));
  }
  EXPECT_THAT(help.output, HasSubstr("EXIT CODES"));
  const ProgramResult job = RunGpipe("job --help");
  for (const char* verb : {"submit", "list", "get", "describe", "watch", "timeline", "wait", "pause", "resume",
                           "cancel", "delete", "pull", "logs"}) {
    EXPECT_THAT(job.output, HasSubstr(absl::StrCat("\n  ", verb, " ")));
  }
}

TEST_F(CliTest, CompletionScriptsNameEveryCommandAndParse) {
  for (const char* shell : {"bash", "zsh"}) {
    const ProgramResult script = RunGpipe(absl::StrCat("completion ", shell));
    EXPECT_EQ(script.exit_code, 0);
    for (const char* command :
         {"run",           "plan",           "validate",    "health",       "version",        "completion",
          "job submit",    "job list",       "job get",     "job describe", "data convert",   "job watch",
          "job wait",      "job checkpoint", "job pause",   "job resume",   "job cancel",     "job delete",
          "job pull",      "job logs",       "worker list", "worker drain", "worker undrain", "admin backup",
          "admin restore", "worker describe"}) {
      EXPECT_THAT(script.output, HasSubstr(absl::StrCat("\"", command, "\")"))) << shell;
    }
  }
  const std::string file = Write("completion", RunGpipe("completion bash").output);
  EXPECT_EQ(std::system(("bash -c '. " + file +
                         "; COMP_WORDS=(gpipe job wa); COMP_CWORD=2; _gpipe; [ \"${COMPREPLY[*]}\" = \"watch wait\" ]'")
                            .c_str()),
            0);
}

TEST_F(CliTest, CompletionOffersTheIdsOfJobs) {
  const std::string file = Write("completion", RunGpipe("completion bash").output);
  const std::string complete =
      absl::StrCat("bash -c 'export GPIPE_ORCHESTRATOR=", fake_.address(), "; . ", file, "; COMP_WORDS=(",
                   (BinFolder() / "gpipe").string(),
                   " job get old); COMP_CWORD=3; _gpipe; [ \"${COMPREPLY[*]}\" = \"old-1 old-2\" ]'");
  EXPECT_EQ(std::system(complete.c_str()), 0);
}

TEST_F(CliTest, MistakesInTheCommandLineExitWith2AndSayWhat) {
  const std::string spec = Write("tiny.yaml", kSpec);
  for (const std::string& arguments :
       {std::string(), std::string("nope"), std::string("job"), std::string("job nope"), std::string("job get"),
        std::string("run"), std::string("run /nowhere.yaml"), std::string("completion fish"), "run --workers 0 " + spec,
        "run --device tpu " + spec, std::string("job get a b"), std::string("-o xml job list"),
        "run --resume some-job " + spec, std::string("--orchestrator 127.0.0.1:99999 health"),
        std::string("--orchestrator 127.0.0.1 health"), std::string("validate /dev/zero")}) {
    const ProgramResult result = RunGpipe(arguments);
    EXPECT_EQ(result.exit_code, 2) << arguments;
    EXPECT_FALSE(result.output.empty()) << arguments;
  }
  EXPECT_THAT(RunGpipe("nope").output, HasSubstr("nope"));
}

TEST_F(CliTest, OutputThatCannotBeWrittenIsAFailure) {
  for (const char* command : {"--help", "completion bash", "version", "-o json job list"}) {
    EXPECT_EQ(OnFake(command).exit_code, 0) << command;
    EXPECT_EQ(OnFake(absl::StrCat(command, " >/dev/full")).exit_code, 1) << command;
  }
}

TEST_F(CliTest, ABadSpecIsRefusedWithFileLineAndFieldBeforeAnythingStarts) {
  std::string text = kSpec;
  const std::string spec = Write("bad.yaml", text.replace(text.find("chunks: 2"), 9, "chunkz: 2"));
  const ProgramResult result = RunGpipe("run " + spec, "GPIPE_BIN_DIR=/nowhere");
  EXPECT_EQ(result.exit_code, 2);
  EXPECT_THAT(result.output, HasSubstr(spec + ":6: pipeline.chunkz: "));
}

TEST_F(CliTest, AMissingFileIsRefusedAtTheLineThatNamesIt) {
  std::string text = kSpec;
  const std::string spec = Write(
      "missing.yaml", text.replace(text.find("random_inputs: {shape: [8, 4]}"), 30, "inputs: nowhere.safetensors"));
  const ProgramResult result = RunGpipe("run " + spec, "GPIPE_BIN_DIR=/nowhere");
  EXPECT_EQ(result.exit_code, 2);
  EXPECT_THAT(result.output, HasSubstr(spec + ":8: infer.inputs: there is no file " + folder_.path().string()));
}

TEST_F(CliTest, AnIndexOfWeightsAndItsShardsAreReadBeforeAnythingStarts) {
  std::string text = kSpec;
  const std::string spec = Write("sharded.yaml", text.insert(text.find("  sequential:"), "  weights: w.index.json\n"));
  const std::string field = absl::StrCat(spec, ":3: model.weights: ");
  Write("w.index.json", R"({"weight_map": {"0.weight": "1.safetensors"}})");
  EXPECT_THAT(RunGpipe("run " + spec).output, HasSubstr(field + "there is no file " + folder_.path().string()));
  Write("w.index.json", R"({"weight_map": {"0.weight": "/1.safetensors"}})");
  const ProgramResult result = RunGpipe("run " + spec);
  EXPECT_EQ(result.exit_code, 2);
  EXPECT_THAT(result.output, HasSubstr(field));
  EXPECT_THAT(result.output, HasSubstr("w.index.json: not a good index of safetensors files: '/1.safetensors'"));
}

TEST_F(CliTest, WhatTheOrchestratorRefusesHasLinesToo) {
  fake_.AddSubmitError(FieldError("model.sequential[1].relu", "does not fit"));
  const std::string spec = Write("tiny.yaml", kSpec);
  const ProgramResult result = OnFake("job submit " + spec);
  EXPECT_EQ(result.exit_code, 2);
  EXPECT_THAT(result.output, HasSubstr(spec + ":5: model.sequential[1].relu: does not fit"));
}

TEST_F(CliTest, AnUnreachableOrchestratorExitsWith3AndItsAddress) {
  const ProgramResult result = RunGpipe("job list", "GPIPE_ORCHESTRATOR=127.0.0.1:1");
  EXPECT_EQ(result.exit_code, 3);
  EXPECT_THAT(result.output, HasSubstr("127.0.0.1:1"));
}

TEST_F(CliTest, WaitAndWatchEndOnAnyTerminalStateAndExitByIt) {
  const std::pair<v1::Job::State, int> ends[] = {
      {v1::Job::STATE_SUCCEEDED, 0}, {v1::Job::STATE_FAILED, 1}, {v1::Job::STATE_CANCELLED, 5}};
  for (const char* verb : {"wait", "watch", "watch --cycles", "-o json wait", "-o json watch"}) {
    for (const auto& [state, code] : ends) {
      fake_.AddStream({{JobIn(v1::Job::STATE_RUNNING), JobIn(state)}, absl::OkStatus()});
      EXPECT_EQ(OnFake(absl::StrCat("job ", verb, " job-1")).exit_code, code) << verb << " " << state;
    }
  }
}

TEST_F(CliTest, ErrorsOfTheApiHaveExitCodes) {
  EXPECT_EQ(OnFake("job wait unknown").exit_code, 4);
  EXPECT_EQ(OnFake("job cancel unknown").exit_code, 4);
  EXPECT_EQ(OnFake("job cancel done").exit_code, 2);
  EXPECT_EQ(OnFake("job cancel denied").exit_code, 7);
  EXPECT_EQ(OnFake("job get unknown").exit_code, 1);  // The fake does not implement it.
}

TEST_F(CliTest, DeletesEachJobAndExitsByTheFirstThatItCannot) {
  const ProgramResult both = OnFake("job delete old-1 old-2");
  EXPECT_EQ(both.exit_code, 0);
  EXPECT_EQ(both.output, "job old-1 deleted\njob old-2 deleted\n");
  const ProgramResult some = OnFake("job delete unknown old-1 running");
  EXPECT_EQ(some.exit_code, 4);
  EXPECT_THAT(some.output, HasSubstr("job old-1 deleted"));
  EXPECT_THAT(some.output, HasSubstr("job unknown: there is no job unknown\njob running: the job has not ended"));
  EXPECT_EQ(OnFake("job delete running").exit_code, 2);
  EXPECT_EQ(OnFake("-o json job delete old-1").output, "{\"id\":\"old-1\"}\n");
  EXPECT_EQ(OnFake("job delete").exit_code, 2);
  EXPECT_EQ(RunGpipe("job delete a b", "GPIPE_ORCHESTRATOR=127.0.0.1:1").exit_code, 3);
}

TEST_F(CliTest, TheEndOfAJobShowsWhatWasMeasuredBesideItsForecast) {
  v1::WatchJobResponse end = JobIn(v1::Job::STATE_SUCCEEDED);
  end.mutable_job()->mutable_forecast()->set_step_seconds(0.5);
  end.mutable_job()->mutable_forecast()->add_stages()->set_busy_share(0.5);
  v1::ListJobMetricsResponse metrics;
  metrics.add_steps()->set_step_seconds(0.75);
  metrics.mutable_steps(0)->add_stage_busy(0.25);
  fake_.SetMetrics(metrics);
  fake_.AddStream({{end}, absl::OkStatus()});
  const ProgramResult words = OnFake("job wait job-1");
  EXPECT_THAT(words.output, HasSubstr("predicted a step of 500.0 ms, bubble 0%; measured 750.0 ms, 0%"));
  fake_.AddStream({{end}, absl::OkStatus()});
  EXPECT_THAT(OnFake("-o json job wait job-1").output, HasSubstr("\"forecast\": {"));
}

TEST_F(CliTest, WaitTimesOutWith6) {
  fake_.AddStream({{JobIn(v1::Job::STATE_RUNNING)}, absl::OkStatus(), /*hangs=*/true});
  const ProgramResult result = OnFake("job wait --timeout 0.2 job-1");
  EXPECT_EQ(result.exit_code, 6);
  EXPECT_THAT(result.output, HasSubstr("job-1 did not end within 200ms; it is RUNNING"));
}

TEST_F(CliTest, ABrokenStreamIsOpenedAgain) {
  fake_.AddStream({{JobIn(v1::Job::STATE_RUNNING)}, absl::UnavailableError("restarting")});
  fake_.AddStream({{JobIn(v1::Job::STATE_RUNNING)}, absl::OkStatus()});
  fake_.AddStream({{JobIn(v1::Job::STATE_SUCCEEDED)}, absl::OkStatus()});
  EXPECT_EQ(OnFake("job wait job-1").exit_code, 0);
}

TEST_F(CliTest, ASubmissionIsRepeatedWithTheSameRequestId) {
  fake_.AddSubmitError(absl::UnavailableError("restarting"));
  const ProgramResult result = OnFake("-q job submit " + Write("tiny.yaml", kSpec));
  EXPECT_EQ(result.exit_code, 0);
  EXPECT_EQ(result.output, "job-1\n");
  ASSERT_EQ(fake_.request_ids().size(), 2u);
  EXPECT_EQ(fake_.request_ids()[0], fake_.request_ids()[1]);
  EXPECT_GE(fake_.request_ids()[0].size(), 32u);
}

TEST_F(CliTest, SubmitAndWaitExitsByTheJob) {
  fake_.AddStream({{JobIn(v1::Job::STATE_FAILED)}, absl::OkStatus()});
  EXPECT_EQ(OnFake("job submit --wait " + Write("tiny.yaml", kSpec)).exit_code, 1);
}

TEST_F(CliTest, ListReadsAllPagesAndJsonIsOneDocument) {
  const ProgramResult table = OnFake("job list --limit 0");
  for (const char* id : {"new-1", "new-2", "old-1", "old-2"}) EXPECT_THAT(table.output, HasSubstr(id));
  const ProgramResult limited = OnFake("job list --limit 2");
  EXPECT_THAT(limited.output, Not(HasSubstr("old-1")));
  const ProgramResult json = OnFake("job list --limit 0 -o json");
  EXPECT_EQ(json.output.substr(0, 2), "{\n");
  EXPECT_THAT(json.output, HasSubstr("\"id\": \"old-2\""));
}

TEST_F(CliTest, ATimelineIsWhatItsFileSays) {
  EXPECT_THAT(OnFake("job timeline job-1").output, HasSubstr("step 7 of job-1"));
  EXPECT_THAT(OnFake("job timeline job-1 -o -").output, HasSubstr("\"traceEvents\""));
  EXPECT_THAT(OnFake("job timeline job-1 -o json").output, HasSubstr("\"step_seconds\": 0.5"));
  EXPECT_THAT(OnFake("-o json job timeline job-1").output, HasSubstr("\"step_seconds\": 0.5"));
  const std::string svg = folder_.path() / "t.svg", trace = folder_.path() / "t.json";
  EXPECT_EQ(OnFake("job timeline job-1 --step 7 -o " + svg).exit_code, 0);
  EXPECT_EQ(ReadFile(svg)->substr(0, 4), "<svg");
  EXPECT_EQ(OnFake("-q job timeline job-1 -o " + trace).output, "");
  EXPECT_THAT(*ReadFile(trace), HasSubstr("\"traceEvents\""));
  const ProgramResult bad = OnFake("job timeline job-1 -o step.png");
  EXPECT_EQ(bad.exit_code, 2);
  EXPECT_THAT(bad.output, HasSubstr("--output step.png: must end in .svg"));
  EXPECT_EQ(OnFake("job timeline job-1 --step 8").exit_code, 4);
  EXPECT_EQ(OnFake("job timeline job-1 --step 0").exit_code, 2);
}

TEST_F(CliTest, VersionNamesBothPrograms) {
  EXPECT_THAT(OnFake("version").output, HasSubstr("orchestrator 1.2.3"));
  EXPECT_EQ(RunGpipe("version").exit_code, 0);
}

TEST_F(CliTest, ADaemonThatDoesNotStartFailsTheRunWithItsLog) {
  Write("gpipe-orchestrator", "#!/bin/sh\necho cannot lock the state; exit 1\n");
  fs::permissions(folder_.path() / "gpipe-orchestrator", fs::perms::owner_all);
  const ProgramResult result = RunGpipe("run " + Write("tiny.yaml", kSpec), "GPIPE_BIN_DIR=" + folder_.path().string());
  EXPECT_EQ(result.exit_code, 1);
  EXPECT_THAT(result.output, HasSubstr("cannot lock the state"));
}

TEST(FollowJob, GivesUpWhenTheOrchestratorStaysAway) {
  auto fake = std::make_unique<FakeOrchestrator>();
  fake->AddStream({{JobIn(v1::Job::STATE_RUNNING)}, absl::UnavailableError("going")});
  ClusterClient client({.address = fake->address()});
  FollowOptions options;
  options.patience = absl::Milliseconds(300);
  const auto on_update = [&](const v1::WatchJobResponse&) {};
  std::thread stop([&] {
    while (client.last_heard() == absl::InfinitePast()) absl::SleepFor(absl::Milliseconds(1));
    fake.reset();
  });
  const absl::Status status = FollowJob(client, "job-1", options, on_update).status();
  stop.join();
  EXPECT_TRUE(absl::IsUnavailable(status) || absl::IsNotFound(status)) << status;
}

TEST(FollowJob, GoesOnBehindTheLastUpdateOfABrokenStream) {
  FakeOrchestrator fake;
  v1::WatchJobResponse running = JobIn(v1::Job::STATE_RUNNING), step;
  running.set_resume_token("x-1");
  step.mutable_step()->set_step(1);
  step.set_resume_token("x-2");
  fake.AddStream({{running, step}, absl::UnavailableError("the connection broke")});
  fake.AddStream({{}, absl::UnavailableError("it broke again")});
  fake.AddStream({{JobIn(v1::Job::STATE_SUCCEEDED)}, absl::OkStatus()});
  ClusterClient client({.address = fake.address()});
  FollowOptions options;
  options.stages = true;
  int updates = 0;
  EXPECT_TRUE(FollowJob(client, "job-1", options, [&](const v1::WatchJobResponse&) { ++updates; }).ok());
  EXPECT_EQ(updates, 3);
  std::vector<std::string> tokens;
  for (const v1::WatchJobRequest& watch : fake.watches()) {
    EXPECT_TRUE(watch.stages());
    tokens.push_back(watch.resume_token());
  }
  EXPECT_THAT(tokens, testing::ElementsAre("", "x-2", "x-2"));
}

TEST(FollowJob, EndsWhenItsTokenIsStopped) {
  FakeOrchestrator fake;
  fake.AddStream({{JobIn(v1::Job::STATE_RUNNING)}, absl::OkStatus(), /*hangs=*/true});
  std::stop_source stop;
  ClusterClient client({.address = fake.address(), .stop = stop.get_token()});
  const auto on_update = [&](const v1::WatchJobResponse&) { stop.request_stop(); };
  EXPECT_TRUE(absl::IsCancelled(FollowJob(client, "job-1", {}, on_update).status()));
}

TEST(NewestCheckpoint, IsTheHighestStepWithAManifest) {
  const TemporaryFolder folder = TemporaryFolder::Create("gpipe-checkpoints").value();
  for (const char* step : {"9", "20", "100"}) fs::create_directories(folder.path() / "checkpoints" / step);
  EXPECT_TRUE(absl::IsInvalidArgument(NewestCheckpoint(folder.path()).status()));
  for (const char* step : {"9", "20"}) std::ofstream(folder.path() / "checkpoints" / step / "manifest.json") << "{}";
  EXPECT_EQ(NewestCheckpoint(folder.path()).value(), folder.path() / "checkpoints" / "20");
  EXPECT_EQ(NewestCheckpoint(folder.path() / "checkpoints" / "9").value(), folder.path() / "checkpoints" / "9");
}

TEST(NewestCheckpoint, ThoseOfTheJobInJobJsonComeFirst) {
  const TemporaryFolder folder = TemporaryFolder::Create("gpipe-checkpoints").value();
  for (const char* step : {"9", "20", "100"}) {
    fs::create_directories(folder.path() / "checkpoints" / step);
    std::ofstream(folder.path() / "checkpoints" / step / "manifest.json") << "{}";
  }
  const auto newest = [&](const std::string& job) {
    std::ofstream(folder.path() / "job.json") << job;
    return NewestCheckpoint(folder.path()).value().filename();
  };
  EXPECT_EQ(newest(R"({"results": [{"path": "checkpoints/9/manifest.json"},
                                   {"path": "checkpoints/20/manifest.json"}, {"path": "model.safetensors"}]})"),
            "20");
  for (const char* job : {R"({"results": []})", "{}", "[]", "[3]", "no json", R"({"results": 3})"}) {
    EXPECT_EQ(newest(job), "100") << job;
  }
}

struct Fit {
  std::vector<int> balance;
  int layers;
  int spec_workers;
  int flag_workers;
  int expected_workers;
  int expected_pipeline_workers;
};

TEST(FitCluster, StartsOneWorkerPerStageUnlessToldOtherwise) {
  const Fit fits[] = {
      {{2, 3}, 5, 0, 0, 2, 2},                          // One per stage.
      {{2, 3}, 5, 0, 1, 1, 1},                          // Fewer: neighbouring stages share.
      {{2, 3}, 5, 0, 8, 2, 2},                          // More than stages are of no use.
      {{1, 1, 1}, 3, 2, 0, 2, 2},                       // As the spec says.
      {{2, 3}, 5, 1, 2, 2, 2},                          // The flag wins over it.
      {{}, 5, 0, 0, 2, 2},                              // An automatic cut.
      {{}, 5, 3, 0, 3, 3},        {{}, 5, 3, 4, 4, 4},  // The flag wins.
      {{}, 1, 0, 0, 1, 1},                              // No more than layers.
  };
  for (const Fit& fit : fits) {
    v1::JobSpec spec;
    for (const int layers : fit.balance) spec.mutable_pipeline()->add_balance(layers);
    for (int i = 0; i < fit.layers; ++i) spec.mutable_model()->add_sequential()->mutable_relu();
    spec.mutable_pipeline()->set_workers(fit.spec_workers);
    RunOptions options;
    options.workers = fit.flag_workers;
    const LocalClusterOptions cluster = FitCluster(options, 7, 0, spec).value();
    EXPECT_EQ(cluster.workers, fit.expected_workers);
    EXPECT_EQ(spec.pipeline().workers(), fit.expected_pipeline_workers);
    EXPECT_EQ(cluster.threads, std::max(1, 7 / fit.expected_workers));
  }
}

TEST(FitCluster, ASplitHasAStageMoreThanPlaces) {
  v1::JobSpec spec;
  for (const char* module : {"a", "b"}) spec.mutable_pipeline()->add_split(module);
  RunOptions options;
  options.workers = 5;
  EXPECT_EQ(FitCluster(options, 4, 0, spec).value().workers, 3);
}

TEST(FitCluster, AJobDoesNotWaitForWorkersThatNobodyStarts) {
  v1::JobSpec spec;
  spec.set_max_restarts(5);
  ASSERT_TRUE(FitCluster({}, 4, 0, spec).ok());
  EXPECT_EQ(spec.max_restarts(), 0);
}

TEST(FitCluster, OnCudaItNeedsAGpu) {
  v1::JobSpec spec;
  spec.mutable_pipeline()->set_device(v1::DEVICE_CUDA);
  EXPECT_TRUE(absl::IsInvalidArgument(FitCluster({}, 4, 0, spec).status()));
  EXPECT_EQ(FitCluster({}, 4, 2, spec).value().gpus, 2);
  RunOptions on_cpu;
  on_cpu.device = "cpu";
  EXPECT_EQ(FitCluster(on_cpu, 4, 0, spec).value().gpus, 0);
  EXPECT_EQ(spec.pipeline().device(), v1::DEVICE_CPU);
}

}  // namespace
}  // namespace gpipe::client
