#include "worker/model/parameter_source.h"

#include <ATen/ATen.h>

#include <cmath>

#include "worker/model/random.h"

namespace gpipe::worker {

ParameterSource::ParameterSource(uint64_t init_seed, int layer, c10::Device device)
    : device_(device), generator_(MakeGenerator(at::kCPU, SeedOf(init_seed, layer))) {}

at::Tensor ParameterSource::EmptyOnCpu(c10::IntArrayRef shape) const {
  return at::empty(shape, at::device(device_.is_meta() ? device_ : at::kCPU).dtype(at::kFloat));
}

at::Tensor ParameterSource::Uniform(c10::IntArrayRef shape, double bound) {
  at::Tensor tensor = EmptyOnCpu(shape);
  return tensor.is_meta() ? tensor : tensor.uniform_(-bound, bound, generator_).to(device_);
}

at::Tensor ParameterSource::FanIn(c10::IntArrayRef shape, int64_t fan_in) {
  return Uniform(shape, fan_in > 0 ? 1 / std::sqrt(static_cast<double>(fan_in)) : 0);
}

at::Tensor ParameterSource::Normal(c10::IntArrayRef shape) {
  at::Tensor tensor = EmptyOnCpu(shape);
  return tensor.is_meta() ? tensor : tensor.normal_(0, 1, generator_).to(device_);
}

at::Tensor ParameterSource::Constant(c10::IntArrayRef shape, double value) const {
  at::Tensor tensor = EmptyOnCpu(shape);
  return tensor.is_meta() ? tensor : tensor.fill_(value).to(device_);
}

at::Tensor ParameterSource::Counter() const { return at::empty({}, at::device(device_).dtype(at::kLong)).zero_(); }

}  // namespace gpipe::worker
