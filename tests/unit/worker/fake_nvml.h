#ifndef GPIPE_TESTS_UNIT_WORKER_FAKE_NVML_H_
#define GPIPE_TESTS_UNIT_WORKER_FAKE_NVML_H_

namespace gpipe::worker {

// What the library fake_nvml answers, in the units of NVIDIA's; it is `fake_nvml_answers` there. A number below zero:
// the driver does not support that.
struct FakeNvmlAnswers {
  long long memory_used = -1;
  long long utilization_percent = -1;
  long long temperature = -1;
  long long power_milliwatts = -1;
  long long clock_mhz = -1;
  long long max_clock_mhz = -1;
  long long clock_reasons = -1;
  // Asked for as volatile and uncorrected; all other counters have a million.
  long long ecc_errors = -1;
  const char* driver_version = nullptr;
};

}  // namespace gpipe::worker

#endif  // GPIPE_TESTS_UNIT_WORKER_FAKE_NVML_H_
