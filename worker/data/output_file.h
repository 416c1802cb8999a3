#ifndef GPIPE_WORKER_DATA_OUTPUT_FILE_H_
#define GPIPE_WORKER_DATA_OUTPUT_FILE_H_

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <filesystem>
#include <vector>

#include "absl/status/statusor.h"
#include "common/file.h"
#include "gpipe/v1/plan.pb.h"

namespace gpipe::worker {

// outputs.safetensors while inference runs: one tensor, `output`, whose rows arrive in sample order and go straight to
// disk, so that it may be larger than memory. It appears under its name at Commit. Used by the engine's thread only.
class OutputFile {
 public:
  // `shape` begins with the number of samples.
  static absl::StatusOr<OutputFile> Create(const std::filesystem::path& path, v1::DataType dtype,
                                           const std::vector<int64_t>& shape);

  // Rows on the CPU. INTERNAL when type or shape are not as the plan says.
  absl::Status Append(const at::Tensor& rows);

  // INTERNAL unless exactly all rows were written.
  absl::Status Commit();

 private:
  OutputFile(AtomicFile file, v1::DataType dtype, std::vector<int64_t> shape)
      : file_(std::move(file)), dtype_(dtype), shape_(std::move(shape)) {}

  AtomicFile file_;
  v1::DataType dtype_;
  std::vector<int64_t> shape_;
  int64_t written_ = 0;
};

}  // namespace gpipe::worker

#endif  // GPIPE_WORKER_DATA_OUTPUT_FILE_H_
