#include "common/data/sample_table.h"

#include <algorithm>
#include <functional>
#include <numeric>
#include <utility>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "common/data/in_file.h"
#include "common/data/npy.h"
#include "common/safetensors/header.h"
#include "common/status_macros.h"
#include "common/string_view.h"

namespace gpipe::data {
namespace {

using Tensors = std::map<std::string, safetensors::TensorInfo>;

std::string Describe(const SampleTensor& tensor) {
  return absl::StrCat(AbslView(safetensors::DtypeName(tensor.dtype)), " samples of shape [",
                      absl::StrJoin(tensor.shape, ", "), "]");
}

bool IsNpy(const std::string& name) { return absl::EndsWith(name, ".npy"); }

std::string StemOf(const DataPath& file) { return std::filesystem::path(file.name).stem().string(); }

absl::StatusOr<Tensors> TensorsOf(const DataPath& file) {
  if (IsNpy(file.name)) {
    GPIPE_ASSIGN_OR_RETURN(const safetensors::TensorInfo info, ReadNpyHeader(file.path));
    return Tensors{{StemOf(file), info}};
  }
  GPIPE_ASSIGN_OR_RETURN(safetensors::Header header, safetensors::ReadHeader(file.path));
  return std::move(header.tensors);
}

SampleTensor ToSamples(int file, const safetensors::TensorInfo& info) {
  SampleTensor tensor;
  tensor.dtype = info.dtype;
  tensor.single = info.shape.empty();
  if (!tensor.single) tensor.shape.assign(info.shape.begin() + 1, info.shape.end());
  tensor.samples = tensor.single ? 1 : info.shape[0];
  tensor.stride = static_cast<uint64_t>(tensor.stored_bytes());
  tensor.parts.push_back({.file = file, .samples = tensor.samples, .begin = info.begin});
  return tensor;
}

// Adds a tensor of one more file to what the files before it have.
absl::Status Append(const std::string& name, SampleTensor more, const DataPath& file, SampleTable& table) {
  const auto [found, is_new] = table.tensors.try_emplace(name, std::move(more));
  if (is_new) return absl::OkStatus();
  SampleTensor& tensor = found->second;
  if (more.dtype != tensor.dtype || more.shape != tensor.shape || more.single != tensor.single) {
    const std::string& first = table.files[tensor.parts.empty() ? 0 : tensor.parts[0].file].name;
    return absl::InvalidArgumentError(absl::StrCat("'", file.name, "' has other data than '", first, "': '", name,
                                                   "' is ", Describe(more), " here, ", Describe(tensor), " there"));
  }
  tensor.samples += more.samples;
  tensor.parts.insert(tensor.parts.end(), more.parts.begin(), more.parts.end());
  return absl::OkStatus();
}

std::vector<std::string> NamesOf(const Tensors& tensors) {
  std::vector<std::string> names;
  for (const auto& [name, info] : tensors) names.push_back(name);
  return names;
}

// Every safetensors file has the tensors of the first one.
absl::Status CheckNames(const DataPath& file, const Tensors& tensors, const DataPath& first,
                        const std::vector<std::string>& names) {
  const std::vector<std::string> own = NamesOf(tensors);
  if (own == names) return absl::OkStatus();
  return absl::InvalidArgumentError(absl::StrCat("'", file.name, "' has other tensors than '", first.name,
                                                 "': ", absl::StrJoin(own, ", "), " here, ", absl::StrJoin(names, ", "),
                                                 " there"));
}

}  // namespace

int64_t StoredSize(Storage storage, v1::DataType dtype) {
  switch (storage) {
    case Storage::kUint8:
      return 1;
    case Storage::kUint16:
      return 2;
    case Storage::kUint32:
    case Storage::kInt32:
      return 4;
    case Storage::kAsTyped:
      return safetensors::ElementSize(dtype);
  }
  return 0;
}

int64_t SampleTensor::elements() const {
  return std::accumulate(shape.begin(), shape.end(), int64_t{1}, std::multiplies<>());
}

std::vector<int64_t> SampleTensor::whole_shape() const {
  if (single) return {};
  std::vector<int64_t> whole = {samples};
  whole.insert(whole.end(), shape.begin(), shape.end());
  return whole;
}

int64_t SampleTensor::stored_bytes() const { return elements() * StoredSize(storage, dtype); }

uint64_t SampleTensor::EndOf(const Part& part) const {
  if (part.samples == 0) return part.begin;
  return part.begin + static_cast<uint64_t>(part.samples - 1) * stride + static_cast<uint64_t>(stored_bytes());
}

bool IsInOneFile(const SampleTable& table, const std::string& name) {
  if (const auto& parts = table.tensors.at(name).parts; !parts.empty()) return parts.size() == 1;
  const auto is_own = [&](const DataPath& file) { return IsNpy(file.name) && StemOf(file) == name; };
  const auto own = std::count_if(table.files.begin(), table.files.end(), is_own);
  const auto of_many =
      std::count_if(table.files.begin(), table.files.end(), [](const DataPath& file) { return !IsNpy(file.name); });
  return own == 0 ? of_many == 1 : own == 1;
}

absl::StatusOr<SampleTable> OpenTensors(std::vector<DataPath> files) {
  SampleTable table;
  table.files = std::move(files);
  const DataPath* first = nullptr;  // Of the safetensors files.
  std::vector<std::string> names;
  for (size_t i = 0; i < table.files.size(); ++i) {
    const DataPath& file = table.files[i];
    const absl::StatusOr<Tensors> tensors = TensorsOf(file);
    if (!tensors.ok()) return InFile(file.name, tensors.status());
    if (first == nullptr && !IsNpy(file.name)) {
      first = &file;
      names = NamesOf(*tensors);
    }
    if (!IsNpy(file.name)) GPIPE_RETURN_IF_ERROR(CheckNames(file, *tensors, *first, names));
    for (const auto& [name, info] : *tensors) {
      GPIPE_RETURN_IF_ERROR(Append(name, ToSamples(static_cast<int>(i), info), file, table));
    }
  }
  return table;
}

}  // namespace gpipe::data
