#ifndef GPIPE_WORKER_MODEL_PARAMETER_SOURCE_H_
#define GPIPE_WORKER_MODEL_PARAMETER_SOURCE_H_

#include <ATen/core/Generator.h>
#include <ATen/core/Tensor.h>
#include <c10/core/Device.h>
#include <c10/util/ArrayRef.h>

#include <cstdint>

namespace gpipe::worker {

// Makes one layer's initial parameters, with the distributions of torch.nn. All float32, drawn on the CPU and moved,
// so that every kind of device starts equal; on the meta device nothing is drawn.
class ParameterSource {
 public:
  ParameterSource(uint64_t init_seed, int layer, c10::Device device);

  // Uniform in [-bound, bound).
  at::Tensor Uniform(c10::IntArrayRef shape, double bound);
  // kaiming_uniform_(a=sqrt(5)), which torch.nn uses for weights and biases: a bound of 1/sqrt(fan_in).
  at::Tensor FanIn(c10::IntArrayRef shape, int64_t fan_in);
  at::Tensor Normal(c10::IntArrayRef shape);
  at::Tensor Constant(c10::IntArrayRef shape, double value) const;
  // An int64 zero without dimensions.
  at::Tensor Counter() const;

 private:
  at::Tensor EmptyOnCpu(c10::IntArrayRef shape) const;

  c10::Device device_;
  at::Generator generator_;
};

}  // namespace gpipe::worker

#endif  // GPIPE_WORKER_MODEL_PARAMETER_SOURCE_H_
