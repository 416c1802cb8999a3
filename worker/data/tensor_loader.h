#ifndef GPIPE_WORKER_DATA_TENSOR_LOADER_H_
#define GPIPE_WORKER_DATA_TENSOR_LOADER_H_

#include <ATen/core/Tensor.h>
#include <c10/core/Device.h>

#include <array>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>

#include "absl/status/status.h"
#include "absl/types/span.h"

namespace gpipe::worker {

// Fills a span with the bytes from an offset on: of a tensor in a file, for one.
using ReadBytes = std::function<absl::Status(uint64_t offset, absl::Span<char> data)>;

// Fills tensors with bytes from elsewhere, a piece at a time, so that however large they are, no more of them is in
// host memory besides the tensors than a fixed bound: two pieces, pinned where the device is a GPU. Used by one thread.
class TensorLoader {
 public:
  static constexpr size_t kPieceBytes = size_t{16} << 20;

  // Host memory is taken when it is first needed, and given back with the loader.
  explicit TensorLoader(c10::Device device);
  // Waits for copies to the device.
  ~TensorLoader();
  TensorLoader(const TensorLoader&) = delete;
  TensorLoader& operator=(const TensorLoader&) = delete;

  // Copies into `live`, of any strides, the elements that `read` has in row-major order and in type `stored`, which are
  // converted. On a GPU the last copies may be under way afterwards, on the current stream. Errors are those of `read`,
  // and LibTorch's. REQUIRES: `live` is on the loader's device.
  absl::Status Fill(const at::Tensor& live, c10::ScalarType stored, const ReadBytes& read);

 private:
  struct Buffer;

  absl::Status FillPiece(const at::Tensor& piece, c10::ScalarType stored, uint64_t offset, const ReadBytes& read);
  // The one that was used longest ago; what it held has been copied.
  Buffer& NextBuffer();

  const c10::Device device_;
  std::array<std::unique_ptr<Buffer>, 2> buffers_;
  size_t next_ = 0;
};

}  // namespace gpipe::worker

#endif  // GPIPE_WORKER_DATA_TENSOR_LOADER_H_
