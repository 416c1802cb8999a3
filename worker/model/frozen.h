#ifndef GPIPE_WORKER_MODEL_FROZEN_H_
#define GPIPE_WORKER_MODEL_FROZEN_H_

#include <algorithm>
#include <string>

#include "absl/strings/match.h"

namespace gpipe::worker {

// Whether a tensor's name begins with one of Train.freeze.
template <typename Prefixes>
bool IsFrozen(const Prefixes& freeze, const std::string& name) {
  return std::any_of(freeze.begin(), freeze.end(),
                     [&](const std::string& prefix) { return absl::StartsWith(name, prefix); });
}

}  // namespace gpipe::worker

#endif  // GPIPE_WORKER_MODEL_FROZEN_H_
