#include "worker/model/cross_entropy_kernels.h"

#include <ATen/ATen.h>

#include <algorithm>
#include <limits>

#include "worker/model/device_kernel.h"

namespace gpipe::worker {
namespace {

// A block has whole warps, as many as its row has work for.
constexpr int64_t kWarp = 32, kMostThreads = 512;

// Each thread goes over its share of the row with the largest logit so far and the sum of exponentials below that,
// which is put right when a larger one comes (Milakov and Gimelshein, Online normalizer calculation for softmax,
// arXiv:1805.02867). A NaN makes the sum one.
constexpr char kSource[] = R"cuda(
struct Sums {
  float largest, sum, all;  // `all` is the sum of what the logits are above the base.
};

__device__ inline Sums Join(Sums a, Sums b) {
  const float largest = fmaxf(a.largest, b.largest);
  const float of_a = a.sum == 0.0f ? 0.0f : a.sum * expf(a.largest - largest);
  const float of_b = b.sum == 0.0f ? 0.0f : b.sum * expf(b.largest - largest);
  return {largest, of_a + of_b, a.all + b.all};
}

__device__ inline Sums JoinWarp(Sums sums) {
  for (int apart = 16; apart > 0; apart /= 2) {
    const Sums other = {__shfl_down_sync(0xffffffffu, sums.largest, apart),
                        __shfl_down_sync(0xffffffffu, sums.sum, apart), __shfl_down_sync(0xffffffffu, sums.all, apart)};
    sums = Join(sums, other);
  }
  return sums;
}

__device__ inline Sums SumsOfThread(const Pack* row, int packs, float base) {
  const float lowest = -__int_as_float(0x7f800000);
  Sums sums = {lowest, 0.0f, 0.0f};
  for (int i = threadIdx.x; i < packs; i += blockDim.x) {
    const Pack pack = row[i];
    float largest = sums.largest;
    for (int j = 0; j < WIDTH; ++j) largest = fmaxf(largest, Load(pack.bits[j]));
    if (largest > sums.largest) {
      sums.sum = sums.sum == 0.0f ? 0.0f : sums.sum * expf(sums.largest - largest);
      sums.largest = largest;
    }
    for (int j = 0; j < WIDTH; ++j) {
      const float x = Load(pack.bits[j]);
      sums.all += x - base;
      // Where all were -inf so far there is nothing to be below; of these the exponential is zero.
      sums.sum += largest == lowest ? (x == lowest ? 0.0f : x) : expf(x - largest);
    }
  }
  return sums;
}

extern "C" __global__ void cross_entropy_rows(const Bits* logits, long long stride, const long long* target, int packs,
                                              float* of_target, float* of_all, float* largest, float* sum) {
  __shared__ Sums of_warps[32];
  const Bits* const row = logits + blockIdx.x * stride;
  const int lane = threadIdx.x % 32, warp = threadIdx.x / 32, warps = blockDim.x / 32;
  // One of the logits, so that little is lost where all of them are large.
  const float first = Load(row[0]), base = fabsf(first) <= 3.4e38f ? first : 0.0f;
  Sums sums = JoinWarp(SumsOfThread(reinterpret_cast<const Pack*>(row), packs, base));
  if (lane == 0) of_warps[warp] = sums;
  __syncthreads();
  if (warp != 0) return;
  const Sums none = {-__int_as_float(0x7f800000), 0.0f, 0.0f};
  sums = JoinWarp(lane < warps ? of_warps[lane] : none);
  if (lane != 0) return;
  const float log_sum = logf(sums.sum);
  const long long wanted = target[blockIdx.x];
  const bool is_class = wanted >= 0 && wanted < (long long)packs * WIDTH;
  of_target[blockIdx.x] = is_class ? Load(row[wanted]) - sums.largest - log_sum : __int_as_float(0x7fc00000);
  of_all[blockIdx.x] = sums.all - (float)packs * WIDTH * (sums.largest - base + log_sum);
  largest[blockIdx.x] = sums.largest;
  sum[blockIdx.x] = sums.sum;
}

extern "C" __global__ void cross_entropy_gradient(const Bits* logits, long long stride, const long long* target,
                                                  int packs, const float* at_target, const float* largest,
                                                  const float* sum, const float* weight, float each, Bits* gradient,
                                                  long long gradient_stride) {
  const Pack* const row = reinterpret_cast<const Pack*>(logits + blockIdx.x * stride);
  Pack* const made = reinterpret_cast<Pack*>(gradient + blockIdx.x * gradient_stride);
  const float by = weight[blockIdx.x], of_target = at_target[blockIdx.x];
  const float most = largest[blockIdx.x], share = 1.0f / sum[blockIdx.x];
  const long long wanted = target[blockIdx.x];
  for (int i = threadIdx.x; i < packs; i += blockDim.x) {
    const Pack pack = row[i];
    Pack result;
    for (int j = 0; j < WIDTH; ++j) {
      const float difference = expf(Load(pack.bits[j]) - most) * share - each;
      result.bits[j] = Store((i * WIDTH + j == wanted ? of_target : difference) * by);
    }
    made[i] = result;
  }
}
)cuda";

// Compiled code, of which a process needs no second copy.
DeviceKernel& RowsKernel() {
  static DeviceKernel kernel("cross_entropy_rows", kSource);
  return kernel;
}

DeviceKernel& GradientKernel() {
  static DeviceKernel kernel("cross_entropy_gradient", kSource);
  return kernel;
}

DeviceKernel::Variant VariantOf(const at::Tensor& logits) {
  return {logits.device().index(), logits.scalar_type(), WidthOf(logits, logits.size(1))};
}

DeviceKernel::Grid GridOf(const at::Tensor& logits, int64_t packs) {
  const int64_t threads = std::clamp((packs + kWarp - 1) / kWarp * kWarp, kWarp, kMostThreads);
  return {logits.size(0), static_cast<int>(threads)};
}

float* Floats(const at::Tensor& tensor) { return tensor.mutable_data_ptr<float>(); }

}  // namespace

bool HaveRowKernels(const at::Tensor& logits) {
  const bool fit = IsForDeviceKernel(logits) && logits.dim() == 2 && logits.numel() > 0 && logits.stride(1) == 1 &&
                   logits.size(0) <= std::numeric_limits<int>::max() && logits.size(1) <= (int64_t{1} << 30);
  return fit && RowsKernel().Has(VariantOf(logits)) && GradientKernel().Has(VariantOf(logits));
}

RowStatistics StatisticsOfRows(const at::Tensor& logits, const at::Tensor& target) {
  const auto made = [&] { return at::empty({logits.size(0), 1}, logits.options().dtype(at::kFloat)); };
  RowStatistics rows{made(), made(), made(), made()};
  const DeviceKernel::Variant variant = VariantOf(logits);
  const void* read = logits.const_data_ptr();
  const at::Tensor classes = target.contiguous();
  const int64_t* wanted = classes.const_data_ptr<int64_t>();
  long long stride = logits.stride(0);
  auto packs = static_cast<int>(logits.size(1) / variant.width);
  float *of_target = Floats(rows.of_target), *of_all = Floats(rows.of_all), *largest = Floats(rows.largest),
        *sum = Floats(rows.sum);
  void* arguments[] = {&read, &stride, &wanted, &packs, &of_target, &of_all, &largest, &sum};
  RowsKernel().Launch(variant, GridOf(logits, packs), arguments);
  return rows;
}

at::Tensor GradientOfRows(const RowsOfLogits& rows, const at::Tensor& at_target, double each,
                          const at::Tensor& weight) {
  const at::Tensor& logits = rows.logits;
  at::Tensor gradient = at::empty(logits.sizes(), logits.options());
  const DeviceKernel::Variant variant = VariantOf(logits);
  const at::Tensor classes = rows.target.contiguous(), difference = at_target.to(at::kFloat).contiguous(),
                   by = weight.to(at::kFloat).contiguous();
  const void* read = logits.const_data_ptr();
  void* written = gradient.mutable_data_ptr();
  const int64_t* wanted = classes.const_data_ptr<int64_t>();
  long long stride = logits.stride(0), gradient_stride = gradient.stride(0);
  auto packs = static_cast<int>(logits.size(1) / variant.width);
  auto of_each = static_cast<float>(each);
  const float *of_target = difference.const_data_ptr<float>(), *largest = rows.largest.const_data_ptr<float>(),
              *sum = rows.sum.const_data_ptr<float>(), *weights = by.const_data_ptr<float>();
  void* arguments[] = {&read, &stride,  &wanted,  &packs,   &of_target,      &largest,
                       &sum,  &weights, &of_each, &written, &gradient_stride};
  GradientKernel().Launch(variant, GridOf(logits, packs), arguments);
  return gradient;
}

std::vector<const DeviceKernel*> CrossEntropyKernels() { return {&RowsKernel(), &GradientKernel()}; }

}  // namespace gpipe::worker
