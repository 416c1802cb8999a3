#include "worker/model/random.h"

#include <ATen/CPUGeneratorImpl.h>
#include <ATen/Context.h>
#include <ATen/cuda/CUDAGeneratorImpl.h>
#include <c10/cuda/CUDAGraphsC10Utils.h>

#include <mutex>

#include "absl/synchronization/mutex.h"

namespace gpipe::worker {
namespace {

ABSL_CONST_INIT absl::Mutex default_generators_mutex(absl::kConstInit);

// No operator draws more numbers than this from one thread of the device: attention with dropout draws one for each
// pair of words, head and sample.
constexpr int kPlaceBits = 32;

// The seed of a graph is set when it is replayed, and its offset only grows while it is recorded.
void MoveTo(at::CUDAGeneratorImpl& generator, uint64_t offset) {
  const uint64_t reached = generator.philox_cuda_state(0).offset_intragraph_;
  TORCH_CHECK(reached <= offset, "random numbers are drawn in another order than the model's");
  generator.philox_cuda_state(offset - reached);
}

void Seed(at::Generator& generator, c10::Device device, const LayerContext& context, uint64_t place) {
  const std::lock_guard<std::mutex> lock(generator.mutex());
  if (!device.is_cuda()) {
    return generator.set_current_seed(SeedOf(context.seed, context.step, context.micro_batch, place));
  }
  auto& cuda = *at::check_generator<at::CUDAGeneratorImpl>(generator);
  const uint64_t offset = place << kPlaceBits;
  if (IsRecording()) return context.measured ? void() : MoveTo(cuda, offset);
  cuda.set_current_seed(SeedOf(context.seed, context.step, context.micro_batch));
  cuda.set_philox_offset_per_thread(offset);
}

}  // namespace

bool IsRecording() { return c10::cuda::currentStreamCaptureStatusMayInitCtx() != c10::cuda::CaptureStatus::None; }

at::Generator MakeGenerator(c10::Device device, uint64_t seed) {
  if (device.is_cpu()) return at::make_generator<at::CPUGeneratorImpl>(seed);
  const auto& hooks = at::globalContext().getAcceleratorHooksInterface(device.type());
  at::Generator generator = hooks.getNewGenerator(device.index());
  generator.set_current_seed(seed);
  return generator;
}

void DrawSeeded(c10::Device device, const LayerContext& context, uint64_t place,
                absl::FunctionRef<void(const at::Generator&)> draw) {
  const absl::MutexLock lock(&default_generators_mutex);
  at::Generator generator = at::globalContext().defaultGenerator(device);
  Seed(generator, device, context, place);
  draw(generator);
}

}  // namespace gpipe::worker
