#include "orchestrator/cluster/message_check.h"

#include <cmath>
#include <functional>
#include <limits>
#include <string>

#include "gmock/gmock.h"
#include "gtest/gtest.h"

namespace gpipe::orchestrator {
namespace {

using testing::HasSubstr;

v1::WorkerMessage Healthy() {
  v1::WorkerMessage message;
  message.mutable_heartbeat()->mutable_activity()->set_phase(v1::PHASE_IDLE);
  v1::GpuHealth& gpu = *message.mutable_heartbeat()->mutable_use()->mutable_gpu();
  gpu.set_temperature_celsius(54);
  gpu.set_power_watts(412.5);
  gpu.set_clock_mhz(1335);
  gpu.set_max_clock_mhz(1980);
  for (const char* why : {"power", "heat", "hardware"}) gpu.add_slowed_by(why);
  gpu.set_uncorrected_errors(2);
  return message;
}

TEST(MessageCheckTest, TakesTheHealthOfAGpu) { EXPECT_TRUE(CheckMessage(Healthy()).ok()) << CheckMessage(Healthy()); }

TEST(MessageCheckTest, RefusesHealthThatNoGpuHas) {
  using Spoil = std::function<void(v1::GpuHealth&)>;
  const std::pair<const char*, Spoil> cases[] = {
      {"temperature_celsius", [](v1::GpuHealth& gpu) { gpu.set_temperature_celsius(-1); }},
      {"power_watts", [](v1::GpuHealth& gpu) { gpu.set_power_watts(-0.5); }},
      {"power_watts", [](v1::GpuHealth& gpu) { gpu.set_power_watts(std::nan("")); }},
      {"power_watts", [](v1::GpuHealth& gpu) { gpu.set_power_watts(std::numeric_limits<double>::infinity()); }},
      {"clock_mhz", [](v1::GpuHealth& gpu) { gpu.set_clock_mhz(-1); }},
      {"max_clock_mhz", [](v1::GpuHealth& gpu) { gpu.set_max_clock_mhz(-1); }},
      {"uncorrected_errors", [](v1::GpuHealth& gpu) { gpu.set_uncorrected_errors(-1); }},
      {"slowed_by", [](v1::GpuHealth& gpu) { gpu.set_slowed_by(0, "\x1b[31mred"); }},
      {"slowed_by", [](v1::GpuHealth& gpu) { gpu.set_slowed_by(0, ""); }},
      {"slowed_by", [](v1::GpuHealth& gpu) { gpu.set_slowed_by(0, std::string(1 << 20, 'x')); }},
      {"slowed_by", [](v1::GpuHealth& gpu) { gpu.add_slowed_by("heat"); }},
  };
  for (const auto& [field, spoil] : cases) {
    v1::WorkerMessage message = Healthy();
    spoil(*message.mutable_heartbeat()->mutable_use()->mutable_gpu());
    const absl::Status refused = CheckMessage(message);
    EXPECT_TRUE(absl::IsInvalidArgument(refused)) << field;
    EXPECT_THAT(std::string(refused.message()), HasSubstr(std::string("heartbeat.use.gpu.") + field));
  }
}

}  // namespace
}  // namespace gpipe::orchestrator
