#include "worker/data/sample_set.h"

#include <ATen/ATen.h>

#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "common/status_macros.h"
#include "worker/torch_status.h"

namespace gpipe::worker {
namespace {

at::Generator GeneratorOf(uint64_t seed) { return at::detail::createCPUGenerator(seed); }

template <typename Shape>
at::Tensor RandomNormal(const Shape& shape, uint64_t seed) {
  return at::randn(std::vector<int64_t>(shape.begin(), shape.end()), GeneratorOf(seed), at::kFloat);
}

at::Tensor RandomInputs(const v1::RandomDataset& random) {
  std::vector<int64_t> shape = {random.samples()};
  shape.insert(shape.end(), random.input_shape().begin(), random.input_shape().end());
  return RandomNormal(shape, random.seed());
}

at::Tensor RandomTargets(const v1::RandomDataset& random) {
  return at::randint(random.classes(), {random.samples()}, GeneratorOf(random.seed() + 1), at::kLong);
}

}  // namespace

absl::StatusOr<SampleSet> SampleSet::Open(const v1::Dataset& dataset, const FileResolver& files, const DataRole& role) {
  return CatchTorch([&]() -> absl::StatusOr<SampleSet> {
    SampleSet set;
    if (dataset.has_random()) {
      for (const ModelInput& input : role.inputs) set.inputs_[input.value] = RandomInputs(dataset.random());
      if (role.targets) set.targets_ = RandomTargets(dataset.random());
      return set;
    }
    std::map<std::string, std::string> tensors;
    for (const ModelInput& input : role.inputs) {
      if (input.index >= dataset.inputs_size()) {
        return absl::InvalidArgumentError(absl::StrCat("the data set names no tensor for the input ", input.value));
      }
      tensors[input.value] = dataset.inputs(input.index);
    }
    GPIPE_RETURN_IF_ERROR(set.Map(dataset.path(), tensors, role.targets ? dataset.target() : "", files));
    return set;
  });
}

absl::StatusOr<SampleSet> SampleSet::Open(const v1::Infer& infer, const FileResolver& files, const DataRole& role) {
  return CatchTorch([&]() -> absl::StatusOr<SampleSet> {
    SampleSet set;
    std::map<std::string, std::string> tensors;
    for (const ModelInput& input : role.inputs) {
      tensors[input.value] = input.value;
      if (!infer.has_random_inputs()) continue;
      set.inputs_[input.value] = RandomNormal(infer.random_inputs().shape(), infer.random_inputs().seed());
    }
    if (infer.has_random_inputs()) return set;
    GPIPE_RETURN_IF_ERROR(set.Map(infer.inputs(), tensors, "", files));
    return set;
  });
}

absl::Status SampleSet::Map(const std::string& path, const std::map<std::string, std::string>& tensors,
                            const std::string& target, const FileResolver& files) {
  if (tensors.empty() && target.empty()) return absl::OkStatus();
  GPIPE_ASSIGN_OR_RETURN(const std::filesystem::path local, files(path));
  GPIPE_ASSIGN_OR_RETURN(file_, TensorFile::Open(local));
  for (const auto& [value, tensor] : tensors) {
    GPIPE_ASSIGN_OR_RETURN(inputs_[value], file_->Get(tensor));
  }
  if (!target.empty()) {
    GPIPE_ASSIGN_OR_RETURN(targets_, file_->Get(target));
  }
  return absl::OkStatus();
}

}  // namespace gpipe::worker
