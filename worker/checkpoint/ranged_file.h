#ifndef GPIPE_WORKER_CHECKPOINT_RANGED_FILE_H_
#define GPIPE_WORKER_CHECKPOINT_RANGED_FILE_H_

#include <cstdint>
#include <functional>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "common/safetensors/header.h"
#include "gpipe/v1/worker_session.pb.h"
#include "worker/data/tensor_loader.h"
#include "worker/stage/stage.h"

namespace gpipe::worker {

// A file of which ranges can be read, wherever it is.
struct RangedFile {
  uint64_t size = 0;
  ReadBytes read;
};

// The first `size` bytes, or all of a smaller file.
absl::StatusOr<std::string> ReadStart(const RangedFile& file, uint64_t size);

// Of a safetensors file. Errors are those of reading, and INVALID_ARGUMENT.
absl::StatusOr<safetensors::Header> ReadHeaderOf(const RangedFile& file);

// A live tensor, and where in a file its values are.
struct Wanted {
  const NamedTensor* live = nullptr;
  safetensors::TensorInfo stored;
};

// Fills the live tensors, in the order in which they lie in the file; only their ranges are read. Errors name `path`
// and the tensor.
absl::Status LoadRanges(const RangedFile& file, const std::string& path, std::vector<Wanted> tensors,
                        TensorLoader& loader);

}  // namespace gpipe::worker

#endif  // GPIPE_WORKER_CHECKPOINT_RANGED_FILE_H_
