#ifndef GPIPE_COMMON_EXPORTED_TENSOR_TABLE_H_
#define GPIPE_COMMON_EXPORTED_TENSOR_TABLE_H_

#include <cstdint>
#include <map>
#include <string>
#include <string_view>
#include <vector>

#include "absl/status/statusor.h"
#include "common/exported/program.h"

namespace gpipe::exported {

// A tensor of the archive: a view of a record, which holds the bytes of a whole storage.
struct StoredTensor {
  std::string record;  // `weight_3`; tensors of one storage share it.
  DtypeCode dtype{};
  std::vector<int64_t> sizes;
  std::vector<int64_t> strides;
  int64_t offset = 0;  // In elements.
  bool requires_grad = false;
};

// By fully qualified name.
using TensorTable = std::map<std::string, StoredTensor>;

// data/weights/model_weights_config.json or data/constants/model_constants_config.json. INVALID_ARGUMENT names the
// tensor: a malformed entry, negative sizes, a pickled tensor (a subclass of torch.Tensor), a layout that is not
// strided.
absl::StatusOr<TensorTable> ParseTensorTable(std::string_view json);

}  // namespace gpipe::exported

#endif  // GPIPE_COMMON_EXPORTED_TENSOR_TABLE_H_
