#include "common/spec/unbatched.h"

#include <algorithm>

namespace gpipe::spec {

bool IsUnbatched(const google::protobuf::RepeatedPtrField<std::string>& unbatched, const std::string& name) {
  return std::find(unbatched.begin(), unbatched.end(), name) != unbatched.end();
}

std::set<std::string> UnbatchedInputs(const v1::JobSpec& spec, const std::vector<std::string>& inputs) {
  std::set<std::string> unbatched;
  const v1::Dataset& dataset = spec.train().dataset();
  for (size_t i = 0; i < inputs.size(); ++i) {
    const bool named = static_cast<int>(i) < dataset.inputs_size() &&
                       IsUnbatched(dataset.unbatched(), dataset.inputs(static_cast<int>(i)));
    if (named || IsUnbatched(spec.infer().unbatched(), inputs[i])) unbatched.insert(inputs[i]);
  }
  return unbatched;
}

}  // namespace gpipe::spec
