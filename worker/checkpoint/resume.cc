#include "worker/checkpoint/resume.h"

#include <ATen/ATen.h>

#include <algorithm>
#include <map>
#include <memory>
#include <string>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "common/safetensors/header.h"
#include "common/safetensors/index.h"
#include "common/status_macros.h"
#include "worker/data/tensor_file.h"
#include "worker/torch_status.h"

namespace gpipe::worker {
namespace {

std::string Describe(const at::Tensor& tensor) {
  return absl::StrCat(c10::toString(tensor.scalar_type()), " [", absl::StrJoin(tensor.sizes(), ", "), "]");
}

absl::Status CopyInto(const NamedTensor& live, const at::Tensor& saved, const std::filesystem::path& file) {
  if (saved.sizes() != live.tensor.sizes() || saved.scalar_type() != live.tensor.scalar_type()) {
    return absl::InvalidArgumentError(absl::StrCat(file.string(), ": ", live.name, " is ", Describe(saved),
                                                   ", the model's is ", Describe(live.tensor)));
  }
  return CatchTorch([&]() -> absl::Status {
    const at::NoGradGuard no_grad;
    at::Tensor(live.tensor).copy_(saved);
    return absl::OkStatus();
  });
}

// A live tensor and its name in a file.
struct Wanted {
  const NamedTensor* live;
  std::string name;
};

absl::Status LoadFrom(const std::filesystem::path& file, const std::vector<Wanted>& wanted) {
  GPIPE_ASSIGN_OR_RETURN(const std::unique_ptr<TensorFile> tensors, TensorFile::Open(file));
  for (const Wanted& tensor : wanted) {
    GPIPE_ASSIGN_OR_RETURN(const at::Tensor saved, tensors->Get(tensor.name));
    GPIPE_RETURN_IF_ERROR(CopyInto(*tensor.live, saved, file));
  }
  return absl::OkStatus();
}

absl::StatusOr<safetensors::WeightMap> FileOfEach(const std::string& weights, const FetchFile& fetch) {
  GPIPE_ASSIGN_OR_RETURN(const std::filesystem::path path, fetch(weights));
  if (safetensors::IsIndex(weights)) return safetensors::ReadIndex(path, weights);
  GPIPE_ASSIGN_OR_RETURN(const safetensors::Header header, safetensors::ReadHeader(path));
  safetensors::WeightMap files;
  for (const auto& [name, info] : header.tensors) files[name] = weights;
  return files;
}

std::map<std::string, std::vector<std::string>> AliasesOfEach(const v1::Plan& plan) {
  std::map<std::string, std::vector<std::string>> aliases;
  for (const v1::LayerInfo& layer : plan.layers()) {
    for (const v1::ModelTensor& tensor : layer.tensors()) {
      aliases[tensor.name()].assign(tensor.aliases().begin(), tensor.aliases().end());
    }
  }
  return aliases;
}

}  // namespace

absl::Status LoadModel(const std::filesystem::path& file, const std::vector<NamedTensor>& state) {
  std::vector<Wanted> wanted;
  for (const NamedTensor& live : state) wanted.push_back({&live, live.name});
  return LoadFrom(file, wanted);
}

absl::Status LoadWeights(const std::string& weights, const v1::Plan& plan, const std::vector<NamedTensor>& state,
                         const FetchFile& fetch) {
  GPIPE_ASSIGN_OR_RETURN(const safetensors::WeightMap files, FileOfEach(weights, fetch));
  const auto aliases = AliasesOfEach(plan);
  std::map<std::string, std::vector<Wanted>> wanted;  // By file.
  for (const NamedTensor& live : state) {
    std::vector<std::string> names = {live.name};
    if (const auto more = aliases.find(live.name); more != aliases.end()) {
      names.insert(names.end(), more->second.begin(), more->second.end());
    }
    const auto name = std::ranges::find_if(names, [&](const std::string& name) { return files.contains(name); });
    if (name == names.end()) return absl::NotFoundError(absl::StrCat(weights, ": no tensor '", live.name, "'"));
    wanted[files.at(*name)].push_back({&live, *name});
  }
  for (const auto& [file, tensors] : wanted) {
    GPIPE_ASSIGN_OR_RETURN(const std::filesystem::path path, fetch(file));
    GPIPE_RETURN_IF_ERROR(LoadFrom(path, tensors));
  }
  return absl::OkStatus();
}

absl::Status LoadOptimizer(const std::filesystem::path& file, Optimizer& optimizer) {
  GPIPE_ASSIGN_OR_RETURN(const std::unique_ptr<TensorFile> tensors, TensorFile::Open(file));
  Values state;
  for (const std::string& name : optimizer.StateNames()) {
    if (!tensors->header().tensors.contains(name)) continue;
    GPIPE_ASSIGN_OR_RETURN(state[name], tensors->Get(name));
  }
  return optimizer.LoadState(state);
}

}  // namespace gpipe::worker
