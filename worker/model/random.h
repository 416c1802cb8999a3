#ifndef GPIPE_WORKER_MODEL_RANDOM_H_
#define GPIPE_WORKER_MODEL_RANDOM_H_

#include <ATen/core/Generator.h>
#include <c10/core/Device.h>

#include <cstdint>

#include "absl/functional/function_ref.h"
#include "common/mix64.h"
#include "worker/model/layer.h"

namespace gpipe::worker {

// One seed out of several numbers, in which their order counts: SeedOf(seed, step, micro_batch, layer).
template <typename... Keys>
constexpr uint64_t SeedOf(Keys... keys) {
  uint64_t seed = 0;
  ((seed = Mix64(seed ^ Mix64(static_cast<uint64_t>(keys)))), ...);
  return seed;
}

// A new generator. The process's default generators are not used for it, because their state depends on what ran
// before.
at::Generator MakeGenerator(c10::Device device, uint64_t seed);

// Whether what is queued on the current CUDA stream is recorded for a graph, and not done.
bool IsRecording();

// Draws with LibTorch's default generator of the device, from which operators of exported programs draw whatever they
// are given, set to what a place of the model draws in one forward of a micro-batch. `place` tells apart the draws of
// that forward: the position of an operator, the number of a layer. A process has one such generator a device, and its
// threads may run several models: another one waits until `draw` has returned.
//
// On CUDA the seed is a function of (job seed, step, micro-batch), and the place only moves the offset into its
// numbers: a CUDA graph reads one seed from the device's memory, so that a recorded forward draws what a plain one
// does. While a graph is recorded places come in ascending order; a c10::Error says where they do not. A forward
// that is only measured draws any numbers there, as it is repeated.
void DrawSeeded(c10::Device device, const LayerContext& context, uint64_t place,
                absl::FunctionRef<void(const at::Generator&)> draw);

}  // namespace gpipe::worker

#endif  // GPIPE_WORKER_MODEL_RANDOM_H_
