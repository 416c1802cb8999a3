#include "worker/checkpoint/resume.h"

#include <ATen/ATen.h>

#include <memory>
#include <string>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
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

}  // namespace

absl::Status LoadModel(const std::filesystem::path& file, const std::vector<NamedTensor>& state) {
  GPIPE_ASSIGN_OR_RETURN(const std::unique_ptr<TensorFile> tensors, TensorFile::Open(file));
  for (const NamedTensor& live : state) {
    GPIPE_ASSIGN_OR_RETURN(const at::Tensor saved, tensors->Get(live.name));
    GPIPE_RETURN_IF_ERROR(CopyInto(live, saved, file));
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
