#include "worker/data/output_file.h"

#include <ATen/ATen.h>

#include <string_view>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "common/plan/shape.h"
#include "common/safetensors/header.h"
#include "common/status_macros.h"
#include "worker/data/tensor_file.h"

namespace gpipe::worker {
namespace {

absl::Status CheckPlanned(const at::Tensor& rows, const v1::ModelValue& planned) {
  const std::vector<int64_t> expected = SizesFor(planned.shape(), rows.dim() == 0 ? 0 : rows.size(0));
  if (rows.sizes() == at::IntArrayRef(expected) && ToDataType(rows.scalar_type()) == planned.dtype()) {
    return absl::OkStatus();
  }
  return absl::InternalError(absl::StrCat("the last stage made '", planned.name(), "' of shape [",
                                          absl::StrJoin(rows.sizes(), ", "), "], planned is [",
                                          absl::StrJoin(expected, ", "), "]"));
}

}  // namespace

absl::StatusOr<OutputFile> OutputFile::Create(const std::filesystem::path& path,
                                              const google::protobuf::RepeatedPtrField<v1::ModelValue>& outputs,
                                              int64_t samples) {
  std::vector<std::pair<std::string, safetensors::TensorInfo>> tensors;
  std::map<std::string, Region> regions;
  for (const v1::ModelValue& output : outputs) {
    regions[output.name()].value = output;
    tensors.push_back({output.name(), {.dtype = output.dtype(), .shape = SizesFor(output.shape(), samples)}});
  }
  const std::string header = safetensors::BuildHeader(tensors);
  for (const auto& [name, info] : tensors) regions[name].next = info.begin;
  GPIPE_ASSIGN_OR_RETURN(AtomicFile file, AtomicFile::Create(path));
  GPIPE_RETURN_IF_ERROR(file.Append(header));
  return OutputFile(std::move(file), std::move(regions), samples);
}

absl::Status OutputFile::Append(const std::map<std::string, at::Tensor>& rows) {
  int64_t count = 0;
  for (const auto& [name, region] : regions_) {
    const auto found = rows.find(name);
    if (found == rows.end()) return absl::InternalError(absl::StrCat("the last stage made no output '", name, "'"));
    GPIPE_RETURN_IF_ERROR(CheckPlanned(found->second, region.value));
    count = found->second.size(0);
  }
  for (auto& [name, region] : regions_) {
    const at::Tensor packed = rows.at(name).contiguous();
    const std::string_view bytes(static_cast<const char*>(packed.const_data_ptr()), packed.nbytes());
    GPIPE_RETURN_IF_ERROR(file_.WriteAt(region.next, bytes));
    region.next += bytes.size();
  }
  written_ += count;
  return absl::OkStatus();
}

absl::Status OutputFile::Commit() {
  if (written_ != samples_) {
    return absl::InternalError(absl::StrCat("wrote ", written_, " of ", samples_, " output rows"));
  }
  return file_.Commit();
}

}  // namespace gpipe::worker
