#include "worker/comm/meeting.h"

#include <ATen/ATen.h>

#include "common/status_macros.h"
#include "worker/torch_status.h"

namespace gpipe::worker {

absl::Status Meet(Communicator& communicator, c10::Device device) {
  return CatchTorch([&]() -> absl::Status {
    // Each worker's part is behind what it received, on its stream; the copy to the host waits for the sum.
    const at::Tensor present = at::ones({1}, at::TensorOptions().dtype(at::kInt).device(device));
    GPIPE_RETURN_IF_ERROR(communicator.AllReduceSum(present));
    const int met = present.to(at::kCPU).item<int>();
    GPIPE_RETURN_IF_ERROR(communicator.status());
    if (met == communicator.size()) return absl::OkStatus();
    return absl::InternalError("the workers' sum over their connections is wrong: what came in cannot be trusted");
  });
}

}  // namespace gpipe::worker
