#include "orchestrator/metrics/cluster_samples.h"

#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "prometheus/text_serializer.h"
#include "tests/unit/orchestrator/scheduling_testing.h"

namespace gpipe::orchestrator {
namespace {

using testing::HasSubstr;
using testing::Not;

class WorkerSamplesTest : public testing::Test {
 protected:
  WorkerEntry& Join(const std::string& name, const std::string& device) {
    v1::Hello hello;
    hello.set_name(name);
    hello.set_device(device);
    hello.set_data_address("127.0.0.1");
    hello.set_incarnation(name);
    return **registry_.Join(hello, std::make_shared<FakeWorker>(), clock_.Now());
  }
  std::string Text() {
    metrics::Samples samples;
    AddWorkers(registry_, clock_.Now(), samples);
    return prometheus::TextSerializer().Serialize(samples.Take());
  }

  FakeClock clock_;
  WorkerRegistry registry_;
};

TEST_F(WorkerSamplesTest, SayWhatGpusSaidInTheirLastHeartbeat) {
  WorkerEntry& worker = Join("g0", "cuda:0");
  EXPECT_THAT(Text(), Not(HasSubstr("gpipe_worker_utilization_ratio"))) << "it has not said anything yet";
  v1::Heartbeat heartbeat;
  v1::DeviceUse& use = *heartbeat.mutable_use();
  use.set_process_bytes(1 << 30);
  use.set_device_used_bytes(1 << 20);
  use.set_utilization(0.5);
  use.mutable_gpu()->set_temperature_celsius(54);
  use.mutable_gpu()->set_power_watts(412.5);
  use.mutable_gpu()->set_clock_mhz(1335);
  use.mutable_gpu()->add_slowed_by("heat");
  use.mutable_gpu()->set_uncorrected_errors(2);
  registry_.Beat(worker, heartbeat);
  for (const char* line : {"gpipe_worker_utilization_ratio{worker=\"g0\"} 0.5\n",
                           "gpipe_worker_gpu_memory_used_bytes{worker=\"g0\"} 1048576\n",
                           "gpipe_worker_gpu_temperature_celsius{worker=\"g0\"} 54\n",
                           "gpipe_worker_gpu_power_watts{worker=\"g0\"} 412.5\n",
                           "gpipe_worker_gpu_clock_hertz{worker=\"g0\"} 1335000000\n",
                           "gpipe_worker_gpu_slowed{worker=\"g0\",reason=\"heat\"} 1\n",
                           "gpipe_worker_gpu_slowed{worker=\"g0\",reason=\"power\"} 0\n",
                           "gpipe_worker_gpu_slowed{worker=\"g0\",reason=\"hardware\"} 0\n",
                           "gpipe_worker_gpu_uncorrected_errors_total{worker=\"g0\"} 2\n"}) {
    EXPECT_THAT(Text(), HasSubstr(line));
  }
}

TEST_F(WorkerSamplesTest, HaveNoGpuOfACpu) {
  v1::Heartbeat heartbeat;
  heartbeat.mutable_use()->set_process_bytes(1 << 30);
  heartbeat.mutable_use()->set_utilization(-1);
  registry_.Beat(Join("c0", "cpu"), heartbeat);
  EXPECT_THAT(Text(), Not(HasSubstr("gpu")));
  EXPECT_THAT(Text(), Not(HasSubstr("gpipe_worker_utilization_ratio"))) << "not known";
  EXPECT_THAT(Text(), HasSubstr("gpipe_worker_up{worker=\"c0\"} 1\n"));
}

}  // namespace
}  // namespace gpipe::orchestrator
