#ifndef GPIPE_WORKER_MODEL_RANDOM_H_
#define GPIPE_WORKER_MODEL_RANDOM_H_

#include <ATen/core/Generator.h>
#include <c10/core/Device.h>

#include <cstdint>

#include "common/mix64.h"

namespace gpipe::worker {

// One seed out of several numbers, in which their order counts: SeedOf(seed, step, micro_batch, layer).
template <typename... Keys>
constexpr uint64_t SeedOf(Keys... keys) {
  uint64_t seed = 0;
  ((seed = Mix64(seed ^ Mix64(static_cast<uint64_t>(keys)))), ...);
  return seed;
}

// A new generator. The process's default generators are never used, because their state depends on what ran before.
at::Generator MakeGenerator(c10::Device device, uint64_t seed);

}  // namespace gpipe::worker

#endif  // GPIPE_WORKER_MODEL_RANDOM_H_
