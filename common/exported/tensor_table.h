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

// How the records are named of tensors whose values are not in the archive, one for each storage, where gpipe.export
// has written it. torch.export.save itself has one name for all of them, which does not tell what is tied.
inline constexpr char kElsewhereRecord[] = "external_";

// A tensor of the archive: a view of a record, which holds the bytes of a whole storage.
struct StoredTensor {
  std::string record;  // `weight_3`; tensors of one storage share it.
  DtypeCode dtype{};
  std::vector<int64_t> sizes;
  std::vector<int64_t> strides;
  int64_t offset = 0;  // In elements.
  bool requires_grad = false;
  bool elsewhere = false;  // It was on the meta device: the record is empty, or is not there.
};

// By fully qualified name.
using TensorTable = std::map<std::string, StoredTensor>;

// data/weights/model_weights_config.json or data/constants/model_constants_config.json. INVALID_ARGUMENT names the
// tensor: a malformed entry, negative sizes, a pickled tensor (a subclass of torch.Tensor), a layout that is not
// strided.
absl::StatusOr<TensorTable> ParseTensorTable(std::string_view json);

}  // namespace gpipe::exported

#endif  // GPIPE_COMMON_EXPORTED_TENSOR_TABLE_H_
