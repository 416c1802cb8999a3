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

absl::StatusOr<std::vector<data::DataPath>> Locate(const google::protobuf::RepeatedPtrField<std::string>& paths,
                                                   bool tokens, const FileResolver& files) {
  std::vector<data::DataPath> located;
  for (const std::string& path : paths) {
    data::DataPath& file = located.emplace_back(data::DataPath{.name = path, .path = {}});
    GPIPE_ASSIGN_OR_RETURN(file.path, files(path));
    if (!tokens) continue;
    const absl::StatusOr<std::filesystem::path> index = files(data::IndexBeside(path));
    if (!index.ok() && !absl::IsNotFound(index.status())) return index.status();
    file.index = index.value_or("");
  }
  return located;
}

absl::StatusOr<data::SampleTable> OpenTable(const v1::Dataset& dataset, const FileResolver& files) {
  const auto& paths = dataset.has_tokens() ? dataset.tokens().path() : dataset.path();
  GPIPE_ASSIGN_OR_RETURN(std::vector<data::DataPath> located, Locate(paths, dataset.has_tokens(), files));
  if (dataset.has_tokens()) return data::OpenTokens(std::move(located), dataset.tokens());
  return data::OpenTensors(std::move(located));
}

}  // namespace

absl::StatusOr<SampleSet> SampleSet::Open(const v1::Dataset& dataset, const FileResolver& files, const DataRole& role) {
  return CatchTorch([&]() -> absl::StatusOr<SampleSet> {
    SampleSet set;
    if (dataset.has_random()) {
      for (const ModelInput& input : role.inputs) set.inputs_[input.value] = RowsOf(RandomInputs(dataset.random()));
      if (role.targets) set.targets_ = RowsOf(RandomTargets(dataset.random()));
      return set;
    }
    std::map<std::string, std::string> tensors;
    for (const ModelInput& input : role.inputs) {
      if (input.index >= dataset.inputs_size()) {
        return absl::InvalidArgumentError(absl::StrCat("the data set names no tensor for the input ", input.value));
      }
      tensors[input.value] = dataset.inputs(input.index);
    }
    const std::string target = role.targets ? dataset.target() : "";
    if (tensors.empty() && target.empty()) return set;
    GPIPE_ASSIGN_OR_RETURN(const data::SampleTable table, OpenTable(dataset, files));
    GPIPE_RETURN_IF_ERROR(set.Map(table, tensors, target));
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
      set.inputs_[input.value] = RowsOf(RandomNormal(infer.random_inputs().shape(), infer.random_inputs().seed()));
    }
    if (infer.has_random_inputs() || tensors.empty()) return set;
    GPIPE_ASSIGN_OR_RETURN(std::vector<data::DataPath> located, Locate(infer.inputs(), /*tokens=*/false, files));
    GPIPE_ASSIGN_OR_RETURN(const data::SampleTable table, data::OpenTensors(std::move(located)));
    GPIPE_RETURN_IF_ERROR(set.Map(table, tensors, ""));
    return set;
  });
}

absl::Status SampleSet::Map(const data::SampleTable& table, const std::map<std::string, std::string>& tensors,
                            const std::string& target) {
  tokens_ = table.tokens;
  std::vector<std::shared_ptr<const MappedFile>> mapped;
  for (const data::DataPath& file : table.files) {
    GPIPE_ASSIGN_OR_RETURN(mapped.emplace_back(), MappedFile::Open(file.path, file.name));
  }
  const auto open = [&](const std::string& name) -> absl::StatusOr<std::unique_ptr<Samples>> {
    const auto found = table.tensors.find(name);
    if (found == table.tensors.end() || found->second.single) {
      return absl::NotFoundError(absl::StrCat("'", table.files[0].name, "': no samples '", name, "'"));
    }
    for (const data::Part& part : found->second.parts) {
      if (found->second.EndOf(part) > mapped[part.file]->size()) {
        return absl::FailedPreconditionError(
            absl::StrCat("'", table.files[part.file].name, "' was changed while it was opened"));
      }
    }
    return SamplesIn(mapped, found->second);
  };
  for (const auto& [value, tensor] : tensors) {
    GPIPE_ASSIGN_OR_RETURN(inputs_[value], open(tensor));
  }
  if (!target.empty()) {
    GPIPE_ASSIGN_OR_RETURN(targets_, open(target));
  }
  return absl::OkStatus();
}

}  // namespace gpipe::worker
