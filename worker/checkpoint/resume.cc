#include "worker/checkpoint/resume.h"

#include <ATen/ATen.h>

#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "common/status_macros.h"
#include "common/string_view.h"
#include "worker/data/tensor_file.h"
#include "worker/torch_status.h"

namespace gpipe::worker {
namespace {

constexpr char kCheckpoint[] = "the checkpoint";

template <typename Shape>
std::string Describe(v1::DataType type, const Shape& shape) {
  return absl::StrCat(AbslView(safetensors::DtypeName(type)), " [", absl::StrJoin(shape, ", "), "]");
}

absl::Status CheckSame(const safetensors::TensorInfo& saved, const NamedTensor& live) {
  const v1::DataType type = ToDataType(live.tensor.scalar_type());
  if (live.tensor.sizes().equals(saved.shape) && saved.dtype == type) return absl::OkStatus();
  return absl::InvalidArgumentError(absl::StrCat(kCheckpoint, ": ", live.name, " is ",
                                                 Describe(saved.dtype, saved.shape), ", the model's is ",
                                                 Describe(type, live.tensor.sizes())));
}

}  // namespace

absl::StatusOr<CheckpointTensors> CheckpointTensors::Open(std::vector<RangedFile> files) {
  CheckpointTensors tensors;
  for (size_t i = 0; i < files.size(); ++i) {
    GPIPE_ASSIGN_OR_RETURN(const safetensors::Header header, ReadHeaderOf(files[i]));
    for (const auto& [name, info] : header.tensors) {
      if (!tensors.places_.emplace(name, Place{i, info}).second) {
        return absl::InvalidArgumentError(absl::StrCat(kCheckpoint, ": '", name, "' is in two of its files"));
      }
    }
  }
  tensors.files_ = std::move(files);
  return tensors;
}

absl::Status CheckpointTensors::LoadModel(const std::vector<NamedTensor>& state, TensorLoader& loader) const {
  for (const NamedTensor& live : state) {
    const auto found = places_.find(live.name);
    if (found == places_.end()) {
      return absl::NotFoundError(absl::StrCat(kCheckpoint, ": no tensor '", live.name, "'"));
    }
    GPIPE_RETURN_IF_ERROR(CheckSame(found->second.info, live));
  }
  return Load(state, loader);
}

absl::Status CheckpointTensors::LoadOptimizer(Optimizer& optimizer) const {
  std::vector<NamedTensor> tensors;
  Values state;
  GPIPE_RETURN_IF_ERROR(CatchTorch([&]() -> absl::Status {
    for (const std::string& name : optimizer.StateNames()) {
      const auto found = places_.find(name);
      if (found == places_.end()) continue;
      const auto& info = found->second.info;
      if (info.dtype == v1::DATA_TYPE_UNSPECIFIED) {
        return absl::InvalidArgumentError(
            absl::StrCat(kCheckpoint, ": ", name, " is ", info.dtype_name, ", which nothing here reads"));
      }
      state[name] = at::empty(info.shape, at::dtype(ToScalarType(info.dtype)));
      tensors.push_back({.name = name, .tensor = state[name]});
    }
    return absl::OkStatus();
  }));
  TensorLoader loader(at::kCPU);
  GPIPE_RETURN_IF_ERROR(Load(tensors, loader));
  return optimizer.LoadState(state);
}

absl::Status CheckpointTensors::Load(const std::vector<NamedTensor>& tensors, TensorLoader& loader) const {
  std::map<size_t, std::vector<Wanted>> wanted;  // By file.
  for (const NamedTensor& live : tensors) {
    const Place& place = places_.at(live.name);
    wanted[place.file].push_back({&live, place.info});
  }
  for (auto& [file, in_file] : wanted) {
    GPIPE_RETURN_IF_ERROR(LoadRanges(files_[file], kCheckpoint, std::move(in_file), loader));
  }
  return absl::OkStatus();
}

}  // namespace gpipe::worker
