#include "worker/data/sample_set.h"

#include <ATen/ATen.h>

#include <numeric>
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

// A table and its files in memory. The table must outlive it.
class MappedTable {
 public:
  static absl::StatusOr<MappedTable> Open(const data::SampleTable& table) {
    MappedTable mapped(table);
    for (const data::DataPath& file : table.files) {
      GPIPE_ASSIGN_OR_RETURN(mapped.files_.emplace_back(), MappedFile::Open(file.path, file.name));
    }
    return mapped;
  }

  absl::StatusOr<std::unique_ptr<Samples>> SamplesOf(const std::string& name) const {
    const auto found = table_->tensors.find(name);
    if (found == table_->tensors.end() || found->second.single) {
      return absl::NotFoundError(absl::StrCat("'", table_->files[0].name, "': no samples '", name, "'"));
    }
    return Map(found->second);
  }

  absl::StatusOr<at::Tensor> ReadWhole(const std::string& name) const {
    const auto found = table_->tensors.find(name);
    if (found == table_->tensors.end() || !data::IsInOneFile(*table_, name)) {
      return absl::NotFoundError(absl::StrCat("'", table_->files[0].name, "': no whole tensor '", name, "'"));
    }
    GPIPE_ASSIGN_OR_RETURN(const std::unique_ptr<Samples> rows, Map(found->second));
    std::vector<int64_t> numbers(static_cast<size_t>(rows->size()));
    std::iota(numbers.begin(), numbers.end(), int64_t{0});
    GPIPE_ASSIGN_OR_RETURN(const at::Tensor read, rows->Gather(numbers, /*pinned=*/false));
    return read.reshape(found->second.whole_shape());
  }

 private:
  explicit MappedTable(const data::SampleTable& table) : table_(&table) {}

  absl::StatusOr<std::unique_ptr<Samples>> Map(const data::SampleTensor& tensor) const {
    for (const data::Part& part : tensor.parts) {
      if (tensor.EndOf(part) > files_[part.file]->size()) {
        return absl::FailedPreconditionError(
            absl::StrCat("'", table_->files[part.file].name, "' was changed while it was opened"));
      }
    }
    return SamplesIn(files_, tensor);
  }

  const data::SampleTable* table_;
  std::vector<std::shared_ptr<const MappedFile>> files_;
};

}  // namespace

absl::StatusOr<SampleSet> SampleSet::Open(const v1::Dataset& dataset, const FileResolver& files, const DataRole& role) {
  return CatchTorch([&]() -> absl::StatusOr<SampleSet> {
    SampleSet set;
    if (dataset.has_random()) {
      for (const ModelInput& input : role.inputs) set.inputs_[input.value] = RowsOf(RandomInputs(dataset.random()));
      if (role.targets) set.targets_ = RowsOf(RandomTargets(dataset.random()));
      return set;
    }
    std::vector<Wanted> wanted;
    for (const ModelInput& input : role.inputs) {
      if (input.index >= dataset.inputs_size()) {
        return absl::InvalidArgumentError(absl::StrCat("the data set names no tensor for the input ", input.value));
      }
      wanted.push_back({input.value, dataset.inputs(input.index), input.whole});
    }
    const std::string target = role.targets ? dataset.target() : "";
    if (wanted.empty() && target.empty()) return set;
    GPIPE_ASSIGN_OR_RETURN(const data::SampleTable table, OpenTable(dataset, files));
    GPIPE_RETURN_IF_ERROR(set.Map(table, wanted, target));
    return set;
  });
}

absl::StatusOr<SampleSet> SampleSet::Open(const v1::Infer& infer, const FileResolver& files, const DataRole& role) {
  return CatchTorch([&]() -> absl::StatusOr<SampleSet> {
    SampleSet set;
    std::vector<Wanted> wanted;
    for (const ModelInput& input : role.inputs) {
      wanted.push_back({input.value, input.value, input.whole});
      if (!infer.has_random_inputs()) continue;
      set.inputs_[input.value] = RowsOf(RandomNormal(infer.random_inputs().shape(), infer.random_inputs().seed()));
    }
    if (infer.has_random_inputs() || wanted.empty()) return set;
    GPIPE_ASSIGN_OR_RETURN(std::vector<data::DataPath> located, Locate(infer.inputs(), /*tokens=*/false, files));
    GPIPE_ASSIGN_OR_RETURN(const data::SampleTable table, data::OpenTensors(std::move(located)));
    GPIPE_RETURN_IF_ERROR(set.Map(table, wanted, ""));
    return set;
  });
}

absl::Status SampleSet::Map(const data::SampleTable& table, const std::vector<Wanted>& inputs,
                            const std::string& target) {
  tokens_ = table.tokens;
  GPIPE_ASSIGN_OR_RETURN(const MappedTable mapped, MappedTable::Open(table));
  for (const auto& [value, tensor, whole] : inputs) {
    if (whole) {
      GPIPE_ASSIGN_OR_RETURN(whole_[value], mapped.ReadWhole(tensor));
    } else {
      GPIPE_ASSIGN_OR_RETURN(inputs_[value], mapped.SamplesOf(tensor));
    }
  }
  if (!target.empty()) {
    GPIPE_ASSIGN_OR_RETURN(targets_, mapped.SamplesOf(target));
  }
  return absl::OkStatus();
}

}  // namespace gpipe::worker
