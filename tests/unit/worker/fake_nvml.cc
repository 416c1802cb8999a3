// A library with the binary interface of NVIDIA's libnvidia-ml.so.1, for one GPU that answers what a test says.

#include "tests/unit/worker/fake_nvml.h"

#include <string.h>

namespace {

constexpr int kSuccess = 0, kNotSupported = 3, kNotFound = 6;
constexpr char kBusId[] = "0000:3B:00.0";

template <typename Value>
int Answer(long long answer, Value* value) {
  if (answer < 0) return kNotSupported;
  *value = static_cast<Value>(answer);
  return kSuccess;
}

}  // namespace

extern "C" {

struct Memory {
  unsigned long long total, free, used;
};
struct Utilization {
  unsigned int gpu, memory;
};

gpipe::worker::FakeNvmlAnswers fake_nvml_answers;

int nvmlInit_v2() { return kSuccess; }

int nvmlDeviceGetHandleByPciBusId_v2(const char* bus_id, void** handle) {
  if (strcmp(bus_id, kBusId) != 0) return kNotFound;
  *handle = &fake_nvml_answers;
  return kSuccess;
}

int nvmlDeviceGetMemoryInfo(void*, Memory* memory) { return Answer(fake_nvml_answers.memory_used, &memory->used); }

int nvmlDeviceGetUtilizationRates(void*, Utilization* utilization) {
  return Answer(fake_nvml_answers.utilization_percent, &utilization->gpu);
}

int nvmlDeviceGetTemperature(void*, int sensor, unsigned int* value) {
  return sensor == 0 ? Answer(fake_nvml_answers.temperature, value) : kNotSupported;
}

int nvmlDeviceGetPowerUsage(void*, unsigned int* value) { return Answer(fake_nvml_answers.power_milliwatts, value); }

int nvmlDeviceGetClockInfo(void*, int type, unsigned int* value) {
  return type == 1 ? Answer(fake_nvml_answers.clock_mhz, value) : kNotSupported;
}

int nvmlDeviceGetMaxClockInfo(void*, int type, unsigned int* value) {
  return type == 1 ? Answer(fake_nvml_answers.max_clock_mhz, value) : kNotSupported;
}

#ifdef FAKE_NVML_OF_AN_OLD_DRIVER
int nvmlDeviceGetCurrentClocksThrottleReasons(void*, unsigned long long* value) {
#else
int nvmlDeviceGetCurrentClocksEventReasons(void*, unsigned long long* value) {
#endif
  return Answer(fake_nvml_answers.clock_reasons, value);
}

#ifndef FAKE_NVML_OF_AN_OLD_DRIVER
int nvmlDeviceGetTotalEccErrors(void*, int type, int counter, unsigned long long* value) {
  return Answer(type == 1 && counter == 0 ? fake_nvml_answers.ecc_errors : 1'000'000, value);
}
#endif

int nvmlSystemGetDriverVersion(char* version, unsigned int length) {
  if (fake_nvml_answers.driver_version == nullptr) return kNotSupported;
  strncpy(version, fake_nvml_answers.driver_version, length);
  return kSuccess;
}

}  // extern "C"
