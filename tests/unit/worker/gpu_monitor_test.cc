#include "worker/gpu_monitor.h"

#include <dlfcn.h>

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "tests/unit/paths.h"
#include "tests/unit/worker/fake_nvml.h"

namespace gpipe::worker {
namespace {

using testing::ElementsAre;
using testing::IsEmpty;

// Of fake_nvml.
constexpr char kBusId[] = "0000:3B:00.0";

class GpuMonitorTest : public testing::Test {
 protected:
  void SetUp() override { Load("fake_nvml.so"); }
  void TearDown() override {
    monitor_.reset();
    if (library_ != nullptr) dlclose(library_);
  }

  void Load(const std::string& name) {
    TearDown();
    path_ = (BinFolder().parent_path() / "tests" / name).string();
    library_ = dlopen(path_.c_str(), RTLD_NOW | RTLD_LOCAL);
    ASSERT_NE(library_, nullptr) << dlerror();
    answers_ = static_cast<FakeNvmlAnswers*>(dlsym(library_, "fake_nvml_answers"));
    ASSERT_NE(answers_, nullptr);
    *answers_ = {};
    monitor_ = GpuMonitor::Open(path_, kBusId);
    ASSERT_NE(monitor_, nullptr);
  }

  v1::DeviceUse Measure() {
    monitor_->Measure(use_);
    return use_;
  }
  std::vector<std::string> SlowedBy(long long reasons) {
    answers_->clock_reasons = reasons;
    const v1::DeviceUse use = Measure();
    return {use.gpu().slowed_by().begin(), use.gpu().slowed_by().end()};
  }

  std::string path_;
  void* library_ = nullptr;
  FakeNvmlAnswers* answers_ = nullptr;  // Of library_.
  std::unique_ptr<GpuMonitor> monitor_;
  v1::DeviceUse use_;
};

TEST_F(GpuMonitorTest, SaysWhatTheDriverSays) {
  *answers_ = {.memory_used = 5LL << 30,
               .utilization_percent = 87,
               .temperature = 54,
               .power_milliwatts = 412'500,
               .clock_mhz = 1335,
               .max_clock_mhz = 1980,
               .clock_reasons = 0x20,
               .ecc_errors = 2,
               .driver_version = "580.65.06"};
  const v1::DeviceUse use = Measure();
  EXPECT_EQ(use.device_used_bytes(), 5LL << 30);
  EXPECT_DOUBLE_EQ(use.utilization(), 0.87);
  EXPECT_EQ(use.gpu().temperature_celsius(), 54);
  EXPECT_DOUBLE_EQ(use.gpu().power_watts(), 412.5);
  EXPECT_EQ(use.gpu().clock_mhz(), 1335);
  EXPECT_EQ(use.gpu().max_clock_mhz(), 1980);
  EXPECT_THAT(use.gpu().slowed_by(), ElementsAre("heat"));
  EXPECT_EQ(use.gpu().uncorrected_errors(), 2);
  EXPECT_EQ(monitor_->DriverVersion(), "580.65.06");
}

TEST_F(GpuMonitorTest, WhatIsNotSupportedIsLeftOut) {
  *answers_ = {.memory_used = 1, .utilization_percent = 3, .temperature = 54, .clock_reasons = 0x4};
  EXPECT_TRUE(Measure().has_gpu());
  EXPECT_EQ(Measure().gpu().power_watts(), 0);
  EXPECT_EQ(Measure().gpu().clock_mhz(), 0);
  EXPECT_EQ(Measure().gpu().uncorrected_errors(), 0);
  // A GPU that fell off the bus answers nothing any more: what was is not what is.
  *answers_ = {};
  EXPECT_FALSE(Measure().has_gpu());
  EXPECT_EQ(Measure().device_used_bytes(), 0);
  EXPECT_EQ(Measure().utilization(), -1);
  EXPECT_EQ(monitor_->DriverVersion(), "");
}

TEST_F(GpuMonitorTest, ReasonsForALowClockAreOfThreeKinds) {
  EXPECT_THAT(SlowedBy(0), IsEmpty());
  EXPECT_THAT(SlowedBy(0x1), IsEmpty()) << "idle";
  EXPECT_THAT(SlowedBy(0x2), IsEmpty()) << "clocks that somebody has set";
  EXPECT_THAT(SlowedBy(0x10 | 0x100), IsEmpty()) << "clocks of a group, of a display";
  EXPECT_THAT(SlowedBy(0x4), ElementsAre("power")) << "the power cap";
  EXPECT_THAT(SlowedBy(0x8), ElementsAre("hardware"));
  EXPECT_THAT(SlowedBy(0x20), ElementsAre("heat")) << "by the driver";
  EXPECT_THAT(SlowedBy(0x40), ElementsAre("heat", "hardware"));
  EXPECT_THAT(SlowedBy(0x80), ElementsAre("power", "hardware")) << "the power supply's brake";
  EXPECT_THAT(SlowedBy(0x1 | 0x4 | 0x20), ElementsAre("power", "heat"));
}

TEST_F(GpuMonitorTest, AnOldDriverSaysTheReasonsUnderTheirOldName) {
  Load("fake_nvml_old.so");
  EXPECT_THAT(SlowedBy(0x4), ElementsAre("power"));
  EXPECT_EQ(Measure().gpu().uncorrected_errors(), 0) << "it has no such function";
}

TEST_F(GpuMonitorTest, NonsenseIsNotNegative) {
  *answers_ = {.temperature = 0xffffffffLL, .clock_mhz = 0xffffffffLL, .ecc_errors = INT64_MAX};
  EXPECT_GT(Measure().gpu().temperature_celsius(), 0);
  EXPECT_GT(Measure().gpu().clock_mhz(), 0);
  EXPECT_EQ(Measure().gpu().uncorrected_errors(), INT64_MAX);
}

TEST_F(GpuMonitorTest, NeedsTheLibraryAndTheGpu) {
  EXPECT_EQ(GpuMonitor::Open("libnone.so.1", kBusId), nullptr);
  EXPECT_EQ(GpuMonitor::Open(path_, "0000:99:00.0"), nullptr);
}

}  // namespace
}  // namespace gpipe::worker
