#include "worker/data/output_file.h"

#include <ATen/ATen.h>

#include <string_view>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "common/safetensors/header.h"
#include "common/status_macros.h"
#include "worker/data/tensor_file.h"

namespace gpipe::worker {

absl::StatusOr<OutputFile> OutputFile::Create(const std::filesystem::path& path, v1::DataType dtype,
                                              const std::vector<int64_t>& shape) {
  std::vector<std::pair<std::string, safetensors::TensorInfo>> tensors = {{"output", {.dtype = dtype, .shape = shape}}};
  const std::string header = safetensors::BuildHeader(tensors);
  GPIPE_ASSIGN_OR_RETURN(AtomicFile file, AtomicFile::Create(path));
  GPIPE_RETURN_IF_ERROR(file.Append(header));
  return OutputFile(std::move(file), dtype, shape);
}

absl::Status OutputFile::Append(const at::Tensor& rows) {
  const at::Tensor packed = rows.contiguous();
  const bool fits = packed.dim() == static_cast<int64_t>(shape_.size()) && ToDataType(packed.scalar_type()) == dtype_ &&
                    packed.sizes().slice(1) == at::IntArrayRef(shape_).slice(1);
  if (!fits) {
    return absl::InternalError(absl::StrCat("the last stage made rows of shape [", absl::StrJoin(packed.sizes(), ", "),
                                            "], which do not fit the planned output of shape [",
                                            absl::StrJoin(shape_, ", "), "]"));
  }
  written_ += packed.size(0);
  return file_.Append(std::string_view(static_cast<const char*>(packed.const_data_ptr()), packed.nbytes()));
}

absl::Status OutputFile::Commit() {
  if (written_ != shape_[0]) {
    return absl::InternalError(absl::StrCat("wrote ", written_, " of ", shape_[0], " output rows"));
  }
  return file_.Commit();
}

}  // namespace gpipe::worker
