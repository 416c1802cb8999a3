#include "worker/data/sample_set.h"

#include <ATen/ATen.h>

#include <utility>
#include <vector>

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

absl::StatusOr<SampleSet> SampleSet::Open(const v1::Dataset& dataset, const FileResolver& files, DataRole role) {
  return CatchTorch([&]() -> absl::StatusOr<SampleSet> {
    SampleSet set;
    if (dataset.has_random()) {
      if (role.inputs) set.inputs_ = RandomInputs(dataset.random());
      if (role.targets) set.targets_ = RandomTargets(dataset.random());
      return set;
    }
    if (dataset.inputs_size() != 1) return absl::InvalidArgumentError("a layer list has one input");
    GPIPE_RETURN_IF_ERROR(set.Map(dataset.path(), dataset.inputs(0), dataset.target(), files, role));
    return set;
  });
}

absl::StatusOr<SampleSet> SampleSet::Open(const v1::Infer& infer, const FileResolver& files, DataRole role) {
  return CatchTorch([&]() -> absl::StatusOr<SampleSet> {
    SampleSet set;
    if (infer.has_random_inputs()) {
      if (role.inputs) set.inputs_ = RandomNormal(infer.random_inputs().shape(), infer.random_inputs().seed());
      return set;
    }
    GPIPE_RETURN_IF_ERROR(set.Map(infer.inputs(), "input", "", files, {.inputs = role.inputs}));
    return set;
  });
}

absl::Status SampleSet::Map(const std::string& path, const std::string& input, const std::string& target,
                            const FileResolver& files, DataRole role) {
  if (!role.inputs && !role.targets) return absl::OkStatus();
  GPIPE_ASSIGN_OR_RETURN(const std::filesystem::path local, files(path));
  GPIPE_ASSIGN_OR_RETURN(file_, TensorFile::Open(local));
  if (role.inputs) {
    GPIPE_ASSIGN_OR_RETURN(inputs_, file_->Get(input));
  }
  if (role.targets) {
    GPIPE_ASSIGN_OR_RETURN(targets_, file_->Get(target));
  }
  return absl::OkStatus();
}

}  // namespace gpipe::worker
