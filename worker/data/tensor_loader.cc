#include "worker/data/tensor_loader.h"

#include <ATen/ATen.h>
#include <ATen/core/grad_mode.h>
#include <ATen/cuda/CUDAEvent.h>
#include <c10/cuda/CUDAStream.h>

#include <algorithm>
#include <memory>

#include "absl/functional/function_ref.h"
#include "absl/status/statusor.h"
#include "common/status_macros.h"
#include "worker/torch_status.h"

namespace gpipe::worker {
namespace {

using VisitPiece = absl::FunctionRef<absl::Status(const at::Tensor& piece, int64_t first)>;

// Views of at most `limit` elements that together are the tensor, in row-major order; `first` is the position of a
// view's first element.
absl::Status ForEachPiece(const at::Tensor& tensor, int64_t limit, int64_t first, VisitPiece visit) {
  if (tensor.numel() == 0) return absl::OkStatus();
  if (tensor.numel() <= limit) return visit(tensor, first);
  const int64_t row = tensor.numel() / tensor.size(0);
  if (row > limit) {
    for (int64_t i = 0; i < tensor.size(0); ++i) {
      GPIPE_RETURN_IF_ERROR(ForEachPiece(tensor.select(0, i), limit, first + i * row, visit));
    }
    return absl::OkStatus();
  }
  const int64_t rows = limit / row;
  for (int64_t i = 0; i < tensor.size(0); i += rows) {
    GPIPE_RETURN_IF_ERROR(visit(tensor.narrow(0, i, std::min(rows, tensor.size(0) - i)), first + i * row));
  }
  return absl::OkStatus();
}

absl::Span<char> BytesOf(const at::Tensor& tensor) {
  return {static_cast<char*>(tensor.mutable_data_ptr()), static_cast<size_t>(tensor.nbytes())};
}

}  // namespace

struct TensorLoader::Buffer {
  at::Tensor bytes;
  at::cuda::CUDAEvent copied;  // Never recorded on a CPU.
};

TensorLoader::TensorLoader(c10::Device device) : device_(device) {}

TensorLoader::~TensorLoader() {
  const absl::Status ignored = CatchTorch([&]() -> absl::Status {
    for (const auto& buffer : buffers_) {
      if (buffer != nullptr) buffer->copied.synchronize();
    }
    return absl::OkStatus();
  });
  ignored.IgnoreError();  // A broken device has told of it elsewhere.
}

absl::Status TensorLoader::Fill(const at::Tensor& live, c10::ScalarType stored, const ReadBytes& read) {
  return CatchTorch([&]() -> absl::Status {
    const at::NoGradGuard no_grad;
    const at::Tensor values = live.detach();
    if (device_.is_cpu() && values.scalar_type() == stored && values.is_contiguous()) {
      return values.numel() == 0 ? absl::OkStatus() : read(0, BytesOf(values));
    }
    const auto element = static_cast<int64_t>(c10::elementSize(stored));
    return ForEachPiece(values, static_cast<int64_t>(kPieceBytes) / element, 0,
                        [&](const at::Tensor& piece, int64_t first) {
                          return FillPiece(piece, stored, static_cast<uint64_t>(first * element), read);
                        });
  });
}

absl::Status TensorLoader::FillPiece(const at::Tensor& piece, c10::ScalarType stored, uint64_t offset,
                                     const ReadBytes& read) {
  Buffer& buffer = NextBuffer();
  const auto size = piece.numel() * static_cast<int64_t>(c10::elementSize(stored));
  const at::Tensor bytes = buffer.bytes.narrow(0, 0, size);
  GPIPE_RETURN_IF_ERROR(read(offset, BytesOf(bytes)));
  at::Tensor values = bytes.view(stored).view(piece.sizes());
  if (device_.is_cpu()) {
    piece.copy_(values);
    return absl::OkStatus();
  }
  // Converted and rearranged there: copy_() would do it here, in memory that is not pinned.
  if (stored != piece.scalar_type() || !piece.is_contiguous()) values = values.to(device_, /*non_blocking=*/true);
  piece.copy_(values, /*non_blocking=*/true);
  buffer.copied.record(c10::cuda::getCurrentCUDAStream(device_.index()));
  return absl::OkStatus();
}

TensorLoader::Buffer& TensorLoader::NextBuffer() {
  std::unique_ptr<Buffer>& buffer = buffers_[next_];
  next_ = (next_ + 1) % buffers_.size();
  if (buffer == nullptr) {
    buffer = std::make_unique<Buffer>();
    const auto options = at::dtype(c10::kByte).pinned_memory(device_.is_cuda());
    buffer->bytes = at::empty({static_cast<int64_t>(kPieceBytes)}, options);
  }
  buffer->copied.synchronize();
  return *buffer;
}

}  // namespace gpipe::worker
