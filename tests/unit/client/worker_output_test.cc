#include "client/cli/worker_output.h"

#include "gmock/gmock.h"
#include "gtest/gtest.h"

namespace gpipe::client {
namespace {

using testing::HasSubstr;
using testing::Not;

v1::Worker NewWorker(const std::string& name, const std::string& device) {
  v1::Worker worker;
  worker.set_name(name);
  worker.set_state(v1::Worker::STATE_IDLE);
  worker.set_heartbeat_age_seconds(0.25);
  v1::Hello& hello = *worker.mutable_hello();
  hello.set_device(device);
  hello.set_device_name(device == "cpu" ? "AMD EPYC" : "NVIDIA H200");
  hello.set_threads(8);
  hello.set_memory_bytes(1LL << 37);
  hello.set_data_address("10.0.0.1");
  hello.set_version("0.1.0");
  (*hello.mutable_software())["torch"] = "2.11.0";
  worker.mutable_use()->set_process_bytes(1 << 30);
  worker.mutable_use()->set_utilization(0.5);
  return worker;
}

v1::Worker NewGpuWorker(const std::string& name) {
  v1::Worker worker = NewWorker(name, "cuda:0");
  (*worker.mutable_hello()->mutable_software())["cudnn"] = "9.19.0";
  worker.mutable_use()->set_device_used_bytes(1LL << 36);
  v1::GpuHealth& gpu = *worker.mutable_use()->mutable_gpu();
  gpu.set_temperature_celsius(54);
  gpu.set_power_watts(412.5);
  gpu.set_clock_mhz(1980);
  gpu.set_max_clock_mhz(1980);
  return worker;
}

TEST(RenderWorkers, OfCpusHaveNoHealth) {
  v1::ListWorkersResponse workers;
  *workers.add_workers() = NewWorker("w0", "cpu");
  EXPECT_EQ(RenderWorkers(workers),
            "NAME  STATE  DEVICE        THREADS     MEMORY     USED  LOAD  ADDRESS   JOB  DOING      HEARD\n"
            "w0    IDLE   cpu AMD EPYC        8  128.0 GiB  1.0 GiB   50%  10.0.0.1              0.2 s ago\n");
}

TEST(RenderWorkers, SayHowGpusAreAndWhatTroublesThem) {
  v1::ListWorkersResponse workers;
  *workers.add_workers() = NewWorker("c0", "cpu");
  *workers.add_workers() = NewGpuWorker("g0");
  *workers.add_workers() = NewGpuWorker("g1");
  v1::GpuHealth& gpu = *workers.mutable_workers(2)->mutable_use()->mutable_gpu();
  gpu.set_temperature_celsius(88);
  gpu.set_clock_mhz(1335);
  gpu.add_slowed_by("heat");
  gpu.add_slowed_by("hardware");
  gpu.set_uncorrected_errors(1);
  const std::string table = RenderWorkers(workers);
  EXPECT_THAT(table, HasSubstr("  LOAD  HEALTH "));
  EXPECT_THAT(table, HasSubstr("   50%  54 C 1980 MHz  "));
  EXPECT_THAT(table, HasSubstr("   50%  88 C 1335 MHz, slowed by heat and hardware, 1 memory error  10.0.0.1  "));
}

TEST(RenderWorker, SaysAllOfOne) {
  v1::Worker worker = NewGpuWorker("g0");
  worker.mutable_use()->mutable_gpu()->set_uncorrected_errors(2);
  EXPECT_EQ(RenderWorker(worker),
            "name         g0\n"
            "state        IDLE\n"
            "device       cuda:0 NVIDIA H200\n"
            "address      10.0.0.1\n"
            "threads      8\n"
            "memory       128.0 GiB\n"
            "used         64.0 GiB\n"
            "load         50%\n"
            "temperature  54 C\n"
            "power        412 W\n"
            "clock        1980 MHz of at most 1980 MHz\n"
            "trouble      2 memory errors\n"
            "heard        0.2 s ago\n"
            "gpipe        0.1.0\n"
            "cudnn        9.19.0\n"
            "torch        2.11.0\n");
}

TEST(RenderWorker, LeavesOutWhatIsNotKnown) {
  v1::Worker worker;
  worker.set_name("w1");
  worker.set_state(v1::Worker::STATE_LOST);
  worker.set_drained(true);
  worker.set_reason("drained: new memory");
  EXPECT_EQ(RenderWorker(worker),
            "name         w1\n"
            "state        LOST drained\n"
            "reason       drained: new memory\n"
            "heard        0.0 s ago\n");
}

}  // namespace
}  // namespace gpipe::client
