#ifndef GPIPE_WORKER_DATA_TENSOR_WRITER_H_
#define GPIPE_WORKER_DATA_TENSOR_WRITER_H_

#include "absl/status/status.h"
#include "absl/types/span.h"
#include "common/safetensors/merge.h"
#include "worker/stage/stage.h"

namespace gpipe::worker {

// Hands out tensors, in the given order, as a safetensors file, in pieces of at most 16 MiB. From a GPU they go through
// pinned memory a piece at a time, on a stream of their own, so that no more than two pieces are on the host. REQUIRES:
// the device has done what makes them. INVALID_ARGUMENT, before anything is handed out, names a tensor of a type that
// the format lacks. Any thread.
absl::Status WriteTensors(absl::Span<const NamedTensor> tensors, const safetensors::TakeBytes& take);

}  // namespace gpipe::worker

#endif  // GPIPE_WORKER_DATA_TENSOR_WRITER_H_
