#ifndef GPIPE_WORKER_DATA_OUTPUT_FILE_H_
#define GPIPE_WORKER_DATA_OUTPUT_FILE_H_

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <filesystem>
#include <map>
#include <string>

#include "absl/status/statusor.h"
#include "common/file.h"
#include "gpipe/v1/plan.pb.h"

namespace gpipe::worker {

// outputs.safetensors while inference runs: one tensor for each of the model's outputs, whose rows arrive in sample
// order and go straight to disk, so that it may be larger than memory. It appears under its name at Commit. Used by the
// engine's thread only.
class OutputFile {
 public:
  // Each of `outputs` begins with the batch.
  static absl::StatusOr<OutputFile> Create(const std::filesystem::path& path,
                                           const google::protobuf::RepeatedPtrField<v1::ModelValue>& outputs,
                                           int64_t samples);

  // Rows of every output, on the CPU. INTERNAL when names, types or shapes are not as the plan says.
  absl::Status Append(const std::map<std::string, at::Tensor>& rows);

  // INTERNAL unless exactly all rows were written.
  absl::Status Commit();

 private:
  // One tensor of the file.
  struct Region {
    v1::ModelValue value;
    uint64_t next = 0;  // Where its next row goes.
  };

  OutputFile(AtomicFile file, std::map<std::string, Region> regions, int64_t samples)
      : file_(std::move(file)), regions_(std::move(regions)), samples_(samples) {}

  AtomicFile file_;
  std::map<std::string, Region> regions_;
  int64_t samples_;
  int64_t written_ = 0;
};

}  // namespace gpipe::worker

#endif  // GPIPE_WORKER_DATA_OUTPUT_FILE_H_
