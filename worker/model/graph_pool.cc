#include "worker/model/graph_pool.h"

#include <ATen/core/CachingHostAllocator.h>
#include <c10/cuda/CUDACachingAllocator.h>
#include <c10/cuda/CUDAStream.h>
#include <c10/util/Exception.h>
#include <cuda_runtime_api.h>

#include "common/status_macros.h"
#include "common/string_view.h"
#include "spdlog/spdlog.h"
#include "worker/torch_status.h"

namespace gpipe::worker {
namespace {

// Of a graph with nothing in it, which is as it should be where a stage has nothing to do.
struct IgnoreWarnings : c10::WarningHandler {
  void process(const c10::Warning&) override {}
};

namespace device_memory = c10::cuda::CUDACachingAllocator;

at::HostAllocator& HostMemory() { return *at::getHostAllocator(at::kCUDA); }

// Of what is told after a failure, some is told in vain.
void Try(absl::FunctionRef<void()> tell) {
  CatchTorch([&] {
    tell();
    return absl::OkStatus();
  }).IgnoreError();
}

// One that has been recorded, but could not be made, lets go of its pool itself.
bool HoldsPool(at::cuda::CUDAGraph& graph) {
  return CatchTorch([&] {
           graph.pool();  // Throws if it has not been recorded.
           return absl::OkStatus();
         })
      .ok();
}

}  // namespace

// Held as by a graph: a pool that has lost its last one cannot be recorded into again.
GraphPool::GraphPool(c10::Device device) : device_(device), id_(at::cuda::graph_pool_handle()) {
  device_memory::createOrIncrefPool(device_.index(), id_);
  HostMemory().begin_allocate_to_pool(id_, [](c10::Stream) { return false; });
  HostMemory().end_allocate_to_pool(id_);
}

GraphPool::~GraphPool() { Release(); }

// Once, as a graph would.
void GraphPool::Release() const {
  Try([&] { device_memory::releasePool(device_.index(), id_); });
  Try([&] { HostMemory().release_pool(id_); });
}

absl::Status GraphPool::Record(at::cuda::CUDAGraph& graph, absl::FunctionRef<absl::Status()> work) {
  if (c10::cuda::getCurrentCUDAStream(device_.index()) == c10::cuda::getDefaultCUDAStream(device_.index())) {
    return absl::FailedPreconditionError("CUDA records nothing on its default stream");
  }
  GPIPE_RETURN_IF_ERROR(Begin(graph));
  absl::Status done = CatchTorch(work);
  const absl::Status ended = End(graph);
  if (!ended.ok()) Heal(graph);
  done.Update(ended);
  return done;
}

// Other threads may use the device meanwhile: the restrictions on what may be done are this thread's only.
absl::Status GraphPool::Begin(at::cuda::CUDAGraph& graph) const {
  return CatchTorch([&] {
    graph.capture_begin(id_, cudaStreamCaptureModeThreadLocal);
    return absl::OkStatus();
  });
}

absl::Status GraphPool::End(at::cuda::CUDAGraph& graph) {
  return CatchTorch([&] {
    IgnoreWarnings ignore;
    const c10::WarningUtils::WarningHandlerGuard guard(&ignore);
    graph.capture_end();
    return absl::OkStatus();
  });
}

// CUDAGraph::capture_end leaves off where the recording was broken: before it tells the allocators, which would ask a
// graph that is gone, and the random generator, which would not draw any more. An empty recording that ends well sets
// the latter right.
void GraphPool::Heal(at::cuda::CUDAGraph& graph) const {
  Try([&] { device_memory::endAllocateToPool(device_.index(), id_); });
  Try([&] { HostMemory().end_allocate_to_pool(id_); });
  if (!HoldsPool(graph)) Release();
  at::cuda::CUDAGraph empty;
  absl::Status healed = Begin(empty);
  if (healed.ok()) healed = End(empty);
  if (!healed.ok()) spdlog::warn("CUDA after a broken recording: {}", StdView(healed.message()));
  ForgetCudaError("a broken recording");
}

void ForgetCudaError(const char* of) {
  const cudaError_t error = cudaGetLastError();
  if (error != cudaSuccess) spdlog::warn("CUDA, left over from {}: {}", of, cudaGetErrorString(error));
}

}  // namespace gpipe::worker
