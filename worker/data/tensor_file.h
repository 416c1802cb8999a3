#ifndef GPIPE_WORKER_DATA_TENSOR_FILE_H_
#define GPIPE_WORKER_DATA_TENSOR_FILE_H_

#include <ATen/core/Tensor.h>

#include <filesystem>
#include <memory>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "common/safetensors/header.h"
#include "worker/stage/stage.h"

namespace gpipe::worker {

c10::ScalarType ToScalarType(v1::DataType dtype);
v1::DataType ToDataType(c10::ScalarType type);

// A safetensors file, mapped read-only: tensors are views of the file, read when used. Any thread may read.
class TensorFile {
 public:
  static absl::StatusOr<std::unique_ptr<TensorFile>> Open(const std::filesystem::path& path);
  ~TensorFile();

  const safetensors::Header& header() const { return header_; }

  // A CPU tensor over the mapped bytes; valid as long as this object. NOT_FOUND names the tensor and the file.
  absl::StatusOr<at::Tensor> Get(const std::string& name) const;

 private:
  TensorFile(std::filesystem::path path, safetensors::Header header, void* data, size_t size);

  std::filesystem::path path_;
  safetensors::Header header_;
  void* data_;
  size_t size_;
};

// Writes tensors (moved to the CPU first) in the given order. Readers see all of the file or nothing; it is not synced,
// so a power cut may take it.
absl::Status WriteTensorFile(const std::filesystem::path& path, const std::vector<NamedTensor>& tensors);

}  // namespace gpipe::worker

#endif  // GPIPE_WORKER_DATA_TENSOR_FILE_H_
