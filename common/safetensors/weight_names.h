#ifndef GPIPE_COMMON_SAFETENSORS_WEIGHT_NAMES_H_
#define GPIPE_COMMON_SAFETENSORS_WEIGHT_NAMES_H_

#include <map>
#include <string>
#include <string_view>
#include <vector>

#include "absl/status/statusor.h"

namespace gpipe::safetensors {

// Names without `prefix`, those that begin with it: a model that wraps the one that the files are of.
std::vector<std::string> WithoutPrefix(std::string_view prefix, std::vector<std::string> names);

// The names in files of weights, as a model's tensors are looked up in them: what wrappers add to the names of a
// state_dict() does not matter, neither in the files nor in the model: `module.` at the front (data parallelism) and
// `_orig_mod.` anywhere (torch.compile). Any thread may look up.
class WeightNames {
 public:
  // Needs no more than the names of the files' tensors.
  explicit WeightNames(const std::vector<std::string>& names);

  // The name in the files of the tensor that the model has under any of `names`; its own name before others.
  // NOT_FOUND: the files have none of them. INVALID_ARGUMENT: the files have several, told apart by wrappers only.
  absl::StatusOr<std::string> Find(const std::vector<std::string>& names) const;

  // All names in the files that mean `name`.
  std::vector<std::string> Meaning(std::string_view name) const;

 private:
  std::map<std::string, std::vector<std::string>, std::less<>> by_bare_name_;
};

}  // namespace gpipe::safetensors

#endif  // GPIPE_COMMON_SAFETENSORS_WEIGHT_NAMES_H_
