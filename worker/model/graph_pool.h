#ifndef GPIPE_WORKER_MODEL_GRAPH_POOL_H_
#define GPIPE_WORKER_MODEL_GRAPH_POOL_H_

#include <ATen/cuda/CUDAGraph.h>
#include <c10/core/Device.h>

#include "absl/functional/function_ref.h"
#include "absl/status/status.h"

namespace gpipe::worker {

// Where the graphs of one stage have what they make and what they only need meanwhile. Graphs that share it are
// replayed in the order in which they were recorded: a later one may use the memory of what an earlier one has let go
// of.
class GraphPool {
 public:
  explicit GraphPool(c10::Device device);
  ~GraphPool();
  GraphPool(const GraphPool&) = delete;
  GraphPool& operator=(const GraphPool&) = delete;

  // Records what `work` queues on the current stream, without executing it. Its error, or that of the recording.
  // FAILED_PRECONDITION on the device's default stream.
  absl::Status Record(at::cuda::CUDAGraph& graph, absl::FunctionRef<absl::Status()> work);

 private:
  absl::Status Begin(at::cuda::CUDAGraph& graph) const;
  static absl::Status End(at::cuda::CUDAGraph& graph);
  void Release() const;
  // After the graph's recording has not ended well.
  void Heal(at::cuda::CUDAGraph& graph) const;

  const c10::Device device_;
  const c10::MempoolId_t id_;
};

// The calling thread's last CUDA error, if it has one, is logged, with `of` what, and gone. CUDA keeps the error of a
// call until somebody asks for it, and the next kernel's launch is told of it as its own.
void ForgetCudaError(const char* of);

}  // namespace gpipe::worker

#endif  // GPIPE_WORKER_MODEL_GRAPH_POOL_H_
