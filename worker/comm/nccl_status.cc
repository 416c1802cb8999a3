#include "worker/comm/nccl_status.h"

#include <string>

#include "absl/strings/str_cat.h"
#include "common/string_view.h"

namespace gpipe::worker {
namespace {

absl::StatusCode CodeOf(ncclResult_t result) {
  switch (result) {
    case ncclSuccess:
      return absl::StatusCode::kOk;
    case ncclRemoteError:
    case ncclSystemError:  // A socket to a peer, mostly.
      return absl::StatusCode::kUnavailable;
    case ncclInvalidArgument:
    case ncclInvalidUsage:
      return absl::StatusCode::kFailedPrecondition;
    default:
      return absl::StatusCode::kInternal;
  }
}

}  // namespace

absl::Status NcclStatus(ncclResult_t result, std::string_view doing, ncclComm_t comm) {
  if (result == ncclSuccess) return absl::OkStatus();
  std::string message = absl::StrCat("NCCL, ", AbslView(doing), ": ", ncclGetErrorString(result));
  const char* words = comm == nullptr ? nullptr : ncclGetLastError(comm);
  if (words != nullptr && *words != '\0') absl::StrAppend(&message, " (", words, ")");
  return absl::Status(CodeOf(result), message);
}

absl::Status CudaStatus(cudaError_t error, std::string_view doing) {
  if (error == cudaSuccess) return absl::OkStatus();
  const auto code =
      error == cudaErrorMemoryAllocation ? absl::StatusCode::kResourceExhausted : absl::StatusCode::kInternal;
  return absl::Status(code, absl::StrCat("CUDA, ", AbslView(doing), ": ", cudaGetErrorString(error)));
}

}  // namespace gpipe::worker
