#include "worker/data/tensor_writer.h"

#include <ATen/ATen.h>
#include <ATen/core/grad_mode.h>
#include <c10/cuda/CUDAGuard.h>
#include <c10/cuda/CUDAStream.h>

#include <algorithm>
#include <array>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "common/safetensors/header.h"
#include "common/status_macros.h"
#include "worker/data/tensor_file.h"
#include "worker/torch_status.h"

namespace gpipe::worker {
namespace {

constexpr int64_t kPieceBytes = int64_t{16} << 20;

absl::StatusOr<std::string> HeaderOf(absl::Span<const NamedTensor> tensors) {
  std::vector<std::pair<std::string, safetensors::TensorInfo>> entries;
  for (const NamedTensor& named : tensors) {
    safetensors::TensorInfo info;
    info.dtype = ToDataType(named.tensor.scalar_type());
    info.shape = named.tensor.sizes().vec();
    if (!safetensors::IsInFiles(info.dtype)) {
      return absl::InvalidArgumentError(
          absl::StrCat("tensor '", named.name, "' has a type that the file format lacks"));
    }
    entries.emplace_back(named.name, std::move(info));
  }
  return safetensors::BuildHeader(entries);
}

class Pieces {
 public:
  explicit Pieces(const safetensors::TakeBytes& take) : take_(take) {}

  absl::Status HandOut(const at::Tensor& tensor) {
    if (tensor.numel() == 0) return absl::OkStatus();
    if (tensor.is_cuda()) return HandOutOfDevice(tensor);
    const at::Tensor bytes = BytesOf(tensor);
    const at::Tensor last = std::exchange(held_, bytes);  // Until the first piece of this one is taken.
    for (int64_t begin = 0; begin < bytes.numel(); begin += kPieceBytes) {
      GPIPE_RETURN_IF_ERROR(Take(bytes.narrow(0, begin, std::min(kPieceBytes, bytes.numel() - begin))));
    }
    return absl::OkStatus();
  }

 private:
  static at::Tensor BytesOf(const at::Tensor& tensor) {
    return tensor.detach().resolve_conj().resolve_neg().contiguous().view({-1}).view(at::kByte);
  }

  absl::Status HandOutOfDevice(const at::Tensor& tensor) {
    if (!stream_) stream_ = c10::cuda::getStreamFromPool(/*isHighPriority=*/false, tensor.device().index());
    const c10::cuda::CUDAStreamGuard guard(*stream_);
    const at::Tensor bytes = BytesOf(tensor);
    for (int64_t begin = 0; begin < bytes.numel(); begin += kPieceBytes) {
      const int64_t size = std::min(kPieceBytes, bytes.numel() - begin);
      const at::Tensor piece = NextBuffer().narrow(0, 0, size);
      piece.copy_(bytes.narrow(0, begin, size), /*non_blocking=*/true);
      stream_->synchronize();
      GPIPE_RETURN_IF_ERROR(Take(piece));
    }
    return absl::OkStatus();
  }

  // The bytes of the one before are taken already.
  const at::Tensor& NextBuffer() {
    at::Tensor& buffer = buffers_[next_];
    next_ = (next_ + 1) % buffers_.size();
    if (!buffer.defined()) buffer = at::empty({kPieceBytes}, at::dtype(at::kByte).pinned_memory(true));
    return buffer;
  }

  absl::Status Take(const at::Tensor& piece) {
    return take_({static_cast<const char*>(piece.const_data_ptr()), static_cast<size_t>(piece.numel())});
  }

  const safetensors::TakeBytes& take_;
  at::Tensor held_;
  std::array<at::Tensor, 2> buffers_;
  size_t next_ = 0;
  std::optional<c10::cuda::CUDAStream> stream_;
};

}  // namespace

absl::Status WriteTensors(absl::Span<const NamedTensor> tensors, const safetensors::TakeBytes& take) {
  GPIPE_ASSIGN_OR_RETURN(const std::string header, HeaderOf(tensors));
  Pieces pieces(take);
  absl::Status written = CatchTorch([&]() -> absl::Status {
    const at::NoGradGuard no_grad;
    GPIPE_RETURN_IF_ERROR(take(header));
    for (const NamedTensor& named : tensors) GPIPE_RETURN_IF_ERROR(pieces.HandOut(named.tensor));
    return absl::OkStatus();
  });
  written.Update(take({}));
  return written;
}

}  // namespace gpipe::worker
