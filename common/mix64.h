#ifndef GPIPE_COMMON_MIX64_H_
#define GPIPE_COMMON_MIX64_H_

#include <cstdint>

namespace gpipe {

// One step of splitmix64 (Steele, Lea, Flood 2014): every bit of the input changes half of the output's. Orders of
// samples, initial weights and dropout follow from it, so that it never changes.
constexpr uint64_t Mix64(uint64_t x) {
  x += 0x9e3779b97f4a7c15;
  x = (x ^ (x >> 30)) * 0xbf58476d1ce4e5b9;
  x = (x ^ (x >> 27)) * 0x94d049bb133111eb;
  return x ^ (x >> 31);
}
static_assert(Mix64(0) == 0xe220a8397b1dcdaf, "the first number of its authors' generator from the seed 0");

}  // namespace gpipe

#endif  // GPIPE_COMMON_MIX64_H_
