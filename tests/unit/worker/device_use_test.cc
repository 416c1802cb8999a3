#include "worker/device_use.h"

#include <vector>

#include "absl/time/clock.h"
#include "gtest/gtest.h"

namespace gpipe::worker {
namespace {

TEST(DeviceUseTest, SaysWhatThisProcessUses) {
  DeviceUseMeter meter("cpu");
  const v1::DeviceUse first = meter.Take();
  EXPECT_GT(first.process_bytes(), 1 << 20);
  EXPECT_EQ(first.device_used_bytes(), 0);
  EXPECT_EQ(first.utilization(), -1) << "nothing is measured yet";
  EXPECT_FALSE(first.has_gpu());

  std::vector<char> memory(64 << 20, 1);
  double sum = 0;
  const absl::Time end = absl::Now() + DeviceUseMeter::kInterval + absl::Milliseconds(50);
  for (int64_t i = 0; absl::Now() < end; ++i) sum += static_cast<double>(i % 7);
  const v1::DeviceUse busy = meter.Take();
  EXPECT_GT(busy.process_bytes() + sum * 0, first.process_bytes() + (48 << 20));
  EXPECT_GT(busy.utilization(), 0);
  EXPECT_LE(busy.utilization(), 1);
  EXPECT_EQ(meter.Take().utilization(), busy.utilization()) << "a moment is too short to measure";
}

TEST(DeviceUseTest, AGpuThatIsNotThereIsNotKnown) {
  DeviceUseMeter meter("cuda:999");
  EXPECT_EQ(meter.Take().device_used_bytes(), 0);
  EXPECT_EQ(meter.Take().utilization(), -1);
  EXPECT_FALSE(meter.Take().has_gpu());
  EXPECT_EQ(meter.DriverVersion(), "");
}

}  // namespace
}  // namespace gpipe::worker
