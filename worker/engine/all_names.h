#ifndef GPIPE_WORKER_ENGINE_ALL_NAMES_H_
#define GPIPE_WORKER_ENGINE_ALL_NAMES_H_

#include <string>
#include <utility>
#include <vector>

#include "absl/functional/function_ref.h"
#include "worker/stage/stage.h"

namespace gpipe::worker {

// The tensors, and behind them each once more under every other name that it has in the model.
inline std::vector<NamedTensor> UnderAllNames(
    std::vector<NamedTensor> tensors, absl::FunctionRef<std::vector<std::string>(const std::string&)> other_names) {
  const size_t count = tensors.size();
  for (size_t i = 0; i < count; ++i) {
    for (std::string& other : other_names(tensors[i].name)) {
      tensors.push_back(tensors[i]);
      tensors.back().name = std::move(other);
    }
  }
  return tensors;
}

}  // namespace gpipe::worker

#endif  // GPIPE_WORKER_ENGINE_ALL_NAMES_H_
