#include "worker/checkpoint/weight_files.h"

#include <map>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "common/safetensors/header.h"
#include "common/safetensors/index.h"
#include "common/safetensors/weight_names.h"
#include "common/status_macros.h"
#include "common/string_view.h"
#include "worker/data/tensor_file.h"

namespace gpipe::worker {
namespace {

using safetensors::TensorInfo;

absl::Status About(const std::string& path, const absl::Status& status) {
  return absl::Status(status.code(), absl::StrCat(path, ": ", status.message()));
}

template <typename Shape>
std::string Describe(absl::string_view dtype, const Shape& shape) {
  return absl::StrCat(dtype, " [", absl::StrJoin(shape, ", "), "]");
}

class WeightFiles {
 public:
  WeightFiles(const v1::Model& model, const OpenRanged& open, TensorLoader& loader)
      : model_(model), open_(open), loader_(loader) {}

  absl::Status Load(const v1::Plan& plan, const std::vector<NamedTensor>& state) {
    GPIPE_RETURN_IF_ERROR(FindFiles());
    std::vector<std::string> names;
    for (const auto& [name, file] : file_of_) names.push_back(name);
    const safetensors::WeightNames in_files(names);
    const auto aliases = AliasesOfEach(plan);
    std::map<std::string, std::vector<Wanted>> wanted;  // By file.
    for (const NamedTensor& live : state) {
      std::vector<std::string> own = {live.name};
      if (const auto more = aliases.find(live.name); more != aliases.end()) {
        own.insert(own.end(), more->second.begin(), more->second.end());
      }
      const auto name = in_files.Find(safetensors::WithoutPrefix(model_.weights_prefix(), std::move(own)));
      if (!name.ok()) return About(model_.weights(), name.status());
      GPIPE_ASSIGN_OR_RETURN(const TensorInfo stored, Find(*name, live));
      wanted[file_of_.at(*name)].push_back({&live, stored});
    }
    for (auto& [path, tensors] : wanted) {
      GPIPE_RETURN_IF_ERROR(LoadRanges(files_.at(path).file, path, std::move(tensors), loader_));
    }
    return absl::OkStatus();
  }

 private:
  struct OpenFile {
    RangedFile file;
    safetensors::Header header;
  };

  static std::map<std::string, std::vector<std::string>> AliasesOfEach(const v1::Plan& plan) {
    std::map<std::string, std::vector<std::string>> aliases;
    for (const v1::LayerInfo& layer : plan.layers()) {
      for (const v1::ModelTensor& tensor : layer.tensors()) {
        aliases[tensor.name()].assign(tensor.aliases().begin(), tensor.aliases().end());
      }
    }
    return aliases;
  }

  absl::Status FindFiles() {
    const std::string& path = model_.weights();
    if (safetensors::IsIndex(path)) {
      GPIPE_ASSIGN_OR_RETURN(const RangedFile file, open_(path));
      GPIPE_ASSIGN_OR_RETURN(const std::string text, ReadStart(file, file.size));
      const auto index = safetensors::ParseIndex(text, path);
      if (!index.ok()) return About(path, index.status());
      file_of_ = *index;
      return absl::OkStatus();
    }
    GPIPE_ASSIGN_OR_RETURN(const OpenFile* only, Open(path));
    for (const auto& [name, info] : only->header.tensors) file_of_[name] = path;
    return absl::OkStatus();
  }

  absl::StatusOr<const OpenFile*> Open(const std::string& path) {
    if (const auto known = files_.find(path); known != files_.end()) return &known->second;
    GPIPE_ASSIGN_OR_RETURN(RangedFile file, open_(path));
    absl::StatusOr<safetensors::Header> header = ReadHeaderOf(file);
    if (!header.ok()) return About(path, header.status());
    return &files_.emplace(path, OpenFile{std::move(file), *std::move(header)}).first->second;
  }

  absl::StatusOr<TensorInfo> Find(const std::string& name, const NamedTensor& live) {
    const std::string& path = file_of_.at(name);
    GPIPE_ASSIGN_OR_RETURN(const OpenFile* file, Open(path));
    const auto found = file->header.tensors.find(name);
    if (found == file->header.tensors.end()) return absl::NotFoundError(absl::StrCat(path, ": no tensor '", name, "'"));
    const TensorInfo& stored = found->second;
    const v1::DataType type = ToDataType(live.tensor.scalar_type());
    if (live.tensor.sizes().equals(stored.shape) && safetensors::IsConvertible(stored.dtype, type)) return stored;
    return absl::InvalidArgumentError(
        absl::StrCat(path, ": ", name, " is ", Describe(stored.dtype_name, stored.shape), ", the model's is ",
                     Describe(AbslView(safetensors::DtypeName(type)), live.tensor.sizes())));
  }

  const v1::Model& model_;
  const OpenRanged& open_;
  TensorLoader& loader_;
  safetensors::WeightMap file_of_;         // By the names in the files.
  std::map<std::string, OpenFile> files_;  // By path in the spec; those that are needed.
};

}  // namespace

absl::Status LoadWeights(const v1::Model& model, const v1::Plan& plan, const std::vector<NamedTensor>& state,
                         const OpenRanged& open, TensorLoader& loader) {
  return WeightFiles(model, open, loader).Load(plan, state);
}

}  // namespace gpipe::worker
