#ifndef GPIPE_WORKER_TORCH_STATUS_H_
#define GPIPE_WORKER_TORCH_STATUS_H_

#include <exception>
#include <type_traits>

#include "absl/status/statusor.h"

namespace gpipe::worker {

// The wall behind which LibTorch's exceptions stay: the status of the exception being handled. c10::OutOfMemoryError
// and std::bad_alloc are RESOURCE_EXHAUSTED ("out of memory"), c10::ValueError, IndexError and TypeError
// INVALID_ARGUMENT, the rest INTERNAL; the message is the first line, without the C++ backtrace.
// REQUIRES: called from a catch block.
absl::Status CurrentExceptionStatus();

// Runs `body`, which returns absl::Status or absl::StatusOr<T>, and turns what it throws into that.
template <typename Body>
std::invoke_result_t<Body> CatchTorch(Body&& body) {
  try {
    return body();
  } catch (...) {
    return CurrentExceptionStatus();
  }
}

}  // namespace gpipe::worker

#endif  // GPIPE_WORKER_TORCH_STATUS_H_
