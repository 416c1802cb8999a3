#include "common/exported/tensor_table.h"

#include <utility>

#include "absl/strings/str_cat.h"
#include "common/exported/json_find.h"
#include "common/status_macros.h"
#include "nlohmann/json.hpp"

namespace gpipe::exported {
namespace {

using nlohmann::json;

constexpr int64_t kStrided = 7;

absl::Status Malformed() { return absl::InvalidArgumentError("malformed entry"); }

absl::StatusOr<int64_t> Number(const json& value) {
  if (!value.is_number_integer() || value.get<int64_t>() < 0) return Malformed();
  return value.get<int64_t>();
}

absl::StatusOr<std::vector<int64_t>> Numbers(const json& list) {
  if (!list.is_array()) return Malformed();
  std::vector<int64_t> numbers;
  for (const json& element : list) {
    GPIPE_ASSIGN_OR_RETURN(numbers.emplace_back(), Number(Find(element, "/as_int")));
  }
  return numbers;
}

absl::StatusOr<StoredTensor> ParseTensor(const json& value) {
  if (Find(value, "/use_pickle") == true) {
    return absl::UnimplementedError("a subclass of torch.Tensor is not supported");
  }
  if (Find(value, "/tensor_meta/layout") != kStrided)
    return absl::UnimplementedError("only strided tensors are supported");
  StoredTensor tensor;
  if (!Find(value, "/path_name").is_string()) return Malformed();
  tensor.record = value["path_name"].get<std::string>();
  GPIPE_ASSIGN_OR_RETURN(tensor.dtype.code, Number(Find(value, "/tensor_meta/dtype")));
  GPIPE_ASSIGN_OR_RETURN(tensor.sizes, Numbers(Find(value, "/tensor_meta/sizes")));
  GPIPE_ASSIGN_OR_RETURN(tensor.strides, Numbers(Find(value, "/tensor_meta/strides")));
  GPIPE_ASSIGN_OR_RETURN(tensor.offset, Number(Find(value, "/tensor_meta/storage_offset/as_int")));
  if (tensor.sizes.size() != tensor.strides.size()) return Malformed();
  tensor.requires_grad = Find(value, "/tensor_meta/requires_grad") == true;
  tensor.elsewhere = Find(value, "/tensor_meta/device/type") == "meta";
  return tensor;
}

}  // namespace

absl::StatusOr<TensorTable> ParseTensorTable(std::string_view text) {
  const json root = json::parse(text, nullptr, /*allow_exceptions=*/false);
  const json& config = Find(root, "/config");
  if (!config.is_object()) return absl::InvalidArgumentError("malformed table of tensors");
  TensorTable table;
  for (const auto& [name, value] : config.items()) {
    absl::StatusOr<StoredTensor> tensor = ParseTensor(value);
    if (!tensor.ok()) {
      return absl::Status(tensor.status().code(), absl::StrCat("tensor '", name, "': ", tensor.status().message()));
    }
    table.emplace(name, *std::move(tensor));
  }
  return table;
}

}  // namespace gpipe::exported
