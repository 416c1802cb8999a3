#ifndef GPIPE_WORKER_MODEL_RANDOM_H_
#define GPIPE_WORKER_MODEL_RANDOM_H_

#include <ATen/core/Generator.h>
#include <c10/core/Device.h>

#include <cstdint>

namespace gpipe::worker {

// The finaliser of splitmix64 (Steele, Lea, Flood 2014): every bit of the input changes half of the output's.
constexpr uint64_t Mix64(uint64_t x) {
  x += 0x9e3779b97f4a7c15;
  x = (x ^ (x >> 30)) * 0xbf58476d1ce4e5b9;
  x = (x ^ (x >> 27)) * 0x94d049bb133111eb;
  return x ^ (x >> 31);
}

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
