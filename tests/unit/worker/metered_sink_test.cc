#include "worker/monitor/metered_sink.h"

#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "prometheus/text_serializer.h"
#include "tests/unit/common/metrics_document.h"
#include "tests/unit/worker/recording_sink.h"
#include "worker/monitor/definitions.h"
#include "worker/monitor/worker_monitor.h"

namespace gpipe::worker {
namespace {

using ::testing::HasSubstr;
using ::testing::Not;

TEST(WorkerMetricsTest, AreThoseOfTheDocument) {
  EXPECT_EQ(DefinedMetrics(metric::All()), DocumentedMetrics({"Worker", "Both"}));
}

class FakeClock final : public Clock {
 public:
  absl::Time Now() const override { return now; }
  absl::Time now = absl::FromUnixSeconds(1'700'000'000);
};

class MeteredSinkTest : public testing::Test {
 protected:
  std::string Text() const { return prometheus::TextSerializer().Serialize(registry_.Collect()); }
  void Failed(absl::StatusCode code, const std::string& words, bool consequence) {
    v1::WorkerMessage message;
    message.mutable_failed()->mutable_status()->set_code(static_cast<int>(code));
    message.mutable_failed()->mutable_status()->set_message(words);
    message.mutable_failed()->set_consequence(consequence);
    sink_.Send(message);
  }
  v1::WorkerMessage Round(int64_t step, int64_t samples) {
    v1::WorkerMessage message;
    v1::RoundDone& round = *message.mutable_progress()->add_rounds();
    round.set_step(step);
    round.set_samples(samples);
    round.set_wall_nanos(2'000'000'000);
    return message;
  }

  RecordingSink recorded_;
  prometheus::Registry registry_;
  FakeClock clock_;
  MeteredSink sink_{recorded_, registry_, clock_};
};

TEST_F(MeteredSinkTest, CountsWhatStagesDidAndPassesItOn) {
  v1::WorkerMessage message = Round(7, 64);
  v1::Progress& progress = *message.mutable_progress();
  const auto add = [&](int stage, v1::ActionKind kind, int64_t nanos) {
    v1::ActionDone& action = *progress.add_actions();
    action.set_stage(stage);
    action.set_kind(kind);
    action.set_nanos(nanos);
  };
  add(1, v1::ACTION_KIND_FORWARD, 250'000'000);
  add(1, v1::ACTION_KIND_FORWARD, 250'000'000);
  add(1, v1::ACTION_KIND_RECOMPUTE, 125'000'000);
  add(1, v1::ACTION_KIND_BACKWARD, 500'000'000);
  add(2, v1::ACTION_KIND_OPTIMIZER, 62'500'000);
  v1::RoundDone& round = *progress.mutable_rounds(0);
  round.set_data_wait_nanos(31'250'000);
  for (int stage : {1, 2}) {
    v1::StageReport& report = *round.add_stages();
    report.set_stage(stage);
    report.set_busy_nanos(750'000'000);
    report.set_peak_saved_bytes(1000 * stage);
  }
  v1::PeerTraffic& traffic = *round.add_traffic();
  traffic.set_sent_bytes(4096);
  traffic.set_received_bytes(1024);
  traffic.set_wait_nanos(125'000'000);
  sink_.Send(message);
  sink_.Send(message);

  const std::string text = Text();
  EXPECT_THAT(text, HasSubstr("gpipe_stage_compute_seconds_total{phase=\"forward\",stage=\"1\"} 1\n"));
  EXPECT_THAT(text, HasSubstr("gpipe_stage_compute_seconds_total{phase=\"recompute\",stage=\"1\"} 0.25\n"));
  EXPECT_THAT(text, HasSubstr("gpipe_stage_compute_seconds_total{phase=\"backward\",stage=\"1\"} 1\n"));
  EXPECT_THAT(text, HasSubstr("gpipe_stage_compute_seconds_total{phase=\"optimizer\",stage=\"2\"} 0.125\n"));
  EXPECT_THAT(text, HasSubstr("gpipe_stage_idle_seconds_total{stage=\"1\"} 1\n"));
  EXPECT_THAT(text, HasSubstr("gpipe_stage_saved_bytes{stage=\"2\"} 2000\n"));
  EXPECT_THAT(text, HasSubstr("gpipe_round_duration_seconds_sum 4\n"));
  EXPECT_THAT(text, HasSubstr("gpipe_data_wait_seconds_total 0.0625\n"));
  EXPECT_THAT(text, HasSubstr("gpipe_comm_bytes_total{direction=\"sent\"} 8192\n"));
  EXPECT_THAT(text, HasSubstr("gpipe_comm_bytes_total{direction=\"received\"} 2048\n"));
  EXPECT_THAT(text, HasSubstr("gpipe_comm_seconds_total 0.25\n"));
  EXPECT_EQ(recorded_.messages().size(), 2);
}

TEST_F(MeteredSinkTest, ACheckpointLastsUntilItIsHandedOver) {
  sink_.Send(Round(20, 0));
  clock_.now += absl::Seconds(3);
  v1::WorkerMessage shard;
  shard.mutable_checkpoint_shard()->set_step(20);
  shard.mutable_checkpoint_shard()->add_model()->set_size(600);
  shard.mutable_checkpoint_shard()->add_optimizer()->set_size(400);
  sink_.Send(shard);
  const std::string text = Text();
  EXPECT_THAT(text, HasSubstr("gpipe_checkpoint_seconds_sum 5\n"));
  EXPECT_THAT(text, HasSubstr("gpipe_checkpoint_seconds_count 1\n"));
  EXPECT_THAT(text, HasSubstr("gpipe_checkpoint_bytes_total 1000\n"));
  EXPECT_THAT(text, HasSubstr("gpipe_round_duration_seconds_count 0\n"));  // It is no mini-batch.
}

TEST_F(MeteredSinkTest, FailuresByCode) {
  Failed(absl::StatusCode::kResourceExhausted, "out of memory", false);
  Failed(absl::StatusCode::kUnavailable,
         "receive of micro-batch 1: NCCL, receiving: remote process exited or there was a network error", true);
  const std::string text = Text();
  EXPECT_THAT(text, HasSubstr("gpipe_worker_failures_total{code=\"RESOURCE_EXHAUSTED\",consequence=\"false\"} 1\n"));
  EXPECT_THAT(text, HasSubstr("gpipe_worker_failures_total{code=\"UNAVAILABLE\",consequence=\"true\"} 1\n"));
  EXPECT_THAT(text, HasSubstr("gpipe_nccl_errors_total{code=\"ncclRemoteError\"} 1\n"));
  EXPECT_THAT(text, HasSubstr("gpipe_nccl_errors_total{code=\"ncclSystemError\"} 0\n"));
}

TEST_F(MeteredSinkTest, MonitorSaysWhatTheWorkerDoes) {
  bool connected = false;
  v1::Activity activity;
  v1::DeviceUse use;
  use.set_utilization(-1);
  v1::Hello hello;
  hello.set_name("w0");
  hello.set_device("cpu");
  (*hello.mutable_software())["torch"] = "2.11.0";
  WorkerMonitor monitor({.hello = hello,
                         .connected = [&] { return connected; },
                         .activity = [&] { return activity; },
                         .use = [&] { return use; },
                         .counted = &registry_});
  const auto text = [&] { return prometheus::TextSerializer().Serialize(monitor.Metrics()); };
  EXPECT_THAT(text(), HasSubstr("gpipe_worker_connected 0\n"));
  EXPECT_THAT(text(), Not(HasSubstr("gpipe_gpu_")));
  EXPECT_THAT(text(), Not(HasSubstr("gpipe_device_utilization_ratio")));
  EXPECT_TRUE(absl::IsUnavailable(monitor.Ready()[1].status));
  EXPECT_THAT(monitor.Status(), HasSubstr("\nsession not connected\nidle\n"));

  connected = true;
  activity.mutable_attempt()->set_job("j-1");
  activity.mutable_attempt()->set_attempt(2);
  activity.set_phase(v1::PHASE_BACKWARD);
  activity.set_step(17);
  activity.set_micro_batch(3);
  use.set_utilization(0.5);
  use.set_device_used_bytes(1 << 20);
  use.mutable_gpu()->set_temperature_celsius(54);
  use.mutable_gpu()->set_clock_mhz(1335);
  use.mutable_gpu()->add_slowed_by("power");
  EXPECT_THAT(text(), HasSubstr("gpipe_worker_connected 1\n"));
  EXPECT_THAT(text(), HasSubstr("gpipe_worker_software_info{name=\"torch\",version=\"2.11.0\"} 1\n"));
  EXPECT_THAT(text(), HasSubstr("gpipe_gpu_temperature_celsius 54\n"));
  EXPECT_THAT(text(), HasSubstr("gpipe_gpu_clock_hertz 1335000000\n"));
  EXPECT_THAT(text(), HasSubstr("gpipe_gpu_slowed{reason=\"power\"} 1\n"));
  EXPECT_THAT(text(), HasSubstr("gpipe_gpu_slowed{reason=\"heat\"} 0\n"));
  EXPECT_THAT(text(), HasSubstr("gpipe_gpu_uncorrected_errors_total 0\n"));
  EXPECT_THAT(text(), Not(HasSubstr("gpipe_gpu_power_watts"))) << "the driver does not say";
  EXPECT_THAT(text(), HasSubstr("gpipe_worker_phase{phase=\"BACKWARD\"} 1\n"));
  EXPECT_THAT(text(), HasSubstr("gpipe_worker_phase{phase=\"IDLE\"} 0\n"));
  EXPECT_THAT(text(), HasSubstr("gpipe_gpu_memory_used_bytes 1048576\n"));
  EXPECT_THAT(text(), HasSubstr("gpipe_device_utilization_ratio 0.5\n"));
  EXPECT_THAT(text(), HasSubstr("gpipe_worker_info{worker=\"w0\",device=\"cpu\",device_name=\"\"} 1\n"));
  EXPECT_TRUE(monitor.Ready()[0].status.ok() && monitor.Ready()[1].status.ok());
  EXPECT_THAT(monitor.Status(), HasSubstr("job j-1 attempt 2: BACKWARD, stage 0, step 17, micro-batch 3\n"));
  monitor.SetLeaving();
  EXPECT_TRUE(absl::IsUnavailable(monitor.Ready()[0].status));
}

}  // namespace
}  // namespace gpipe::worker
