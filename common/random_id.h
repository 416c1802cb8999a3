#ifndef GPIPE_COMMON_RANDOM_ID_H_
#define GPIPE_COMMON_RANDOM_ID_H_

#include <random>
#include <string>

#include "absl/strings/str_format.h"

namespace gpipe {

// 128 random bits of the system as 32 hexadecimal digits: unique without asking anybody.
inline std::string RandomId() {
  std::random_device random;
  return absl::StrFormat("%08x%08x%08x%08x", random(), random(), random(), random());
}

}  // namespace gpipe

#endif  // GPIPE_COMMON_RANDOM_ID_H_
