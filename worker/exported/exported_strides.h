#ifndef GPIPE_WORKER_EXPORTED_EXPORTED_STRIDES_H_
#define GPIPE_WORKER_EXPORTED_EXPORTED_STRIDES_H_

#include <cstdint>
#include <optional>
#include <vector>

#include "common/exported/program.h"
#include "common/exported/size_expression.h"

namespace gpipe::worker {

// How a tensor lay in memory where the program was exported; as many of both.
struct ExportedStrides {
  std::vector<int64_t> sizes, strides;
};

// For sizes of the program's inputs; nullopt where they do not tell it, or the tensor has no strides.
std::optional<ExportedStrides> StridesOf(const exported::TensorMeta& meta, const exported::Symbols& symbols);

// Sizes for all symbols of the program, each another one. Which order a layout has does not depend on how large a size
// is, only on which one it is; but they are large, so that what is left after strides and kernels is some size, too.
exported::Symbols AnySizes(const exported::Program& program);

}  // namespace gpipe::worker

#endif  // GPIPE_WORKER_EXPORTED_EXPORTED_STRIDES_H_
