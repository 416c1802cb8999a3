// The job's cross entropy beside PyTorch's own, cross_entropy(logits.flatten(0, 1), targets.flatten()), one after the
// other in one process: forward and backward of one micro-batch, and the most memory beside the logits.
// Usage: loss_bench LAYOUT TYPE POSITIONS CLASSES DEVICE THREADS RUNS, where LAYOUT is
//   last     [2, POSITIONS/2, CLASSES], the classes last
//   seen     the same, seen as [2, CLASSES, POSITIONS/2]
//   second   [2, CLASSES, POSITIONS/2], other positions between two classes
// and TYPE float32, bfloat16 or float16. PyTorch gets `last` in each case. Prints one line of JSON: medians, bytes, and
// the loss, also that of the logits as floats.

#include <ATen/ATen.h>
#include <ATen/Parallel.h>
#include <c10/core/Allocator.h>
#include <c10/cuda/CUDACachingAllocator.h>
#include <c10/cuda/CUDAFunctions.h>
#include <c10/util/ThreadLocalDebugInfo.h>

#include <algorithm>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <functional>
#include <string>
#include <vector>

#include "worker/model/cross_entropy.h"

namespace {

using ::gpipe::worker::CrossEntropy;
using ::gpipe::worker::CrossEntropyOptions;

// The most bytes that were there at once since Begin. On a CPU those of this thread.
class PeakMeter : public c10::MemoryReportingInfoBase {
 public:
  void reportMemoryUsage(void*, int64_t size, size_t, size_t, c10::Device device) override {
    if (!device.is_cpu()) return;
    now_ += size;
    peak_ = std::max(peak_, now_);
  }
  bool memoryProfilingEnabled() const override { return true; }

  void Begin(c10::Device device) {
    now_ = peak_ = 0;
    if (!device.is_cuda()) return;
    c10::cuda::CUDACachingAllocator::resetPeakStats(device.index());
    before_ = Cuda(device).current;
  }
  int64_t Peak(c10::Device device) const { return device.is_cuda() ? Cuda(device).peak - before_ : peak_; }

 private:
  static c10::CachingAllocator::Stat Cuda(c10::Device device) {
    return c10::cuda::CUDACachingAllocator::getDeviceStats(device.index()).allocated_bytes[0];
  }

  int64_t now_ = 0, peak_ = 0, before_ = 0;
};

double Seconds(c10::Device device) {
  if (device.is_cuda()) c10::cuda::device_synchronize();
  return std::chrono::duration<double>(std::chrono::steady_clock::now().time_since_epoch()).count();
}

struct Measured {
  std::vector<double> forward, backward;
  int64_t peak_bytes = 0;
  double loss = 0;
};

using LossOf = std::function<at::Tensor(const at::Tensor& logits)>;

void Measure(const at::Tensor& logits, const LossOf& loss_of, PeakMeter& meter, Measured& measured) {
  const c10::Device device = logits.device();
  const at::Tensor leaf = logits.detach().requires_grad_();
  meter.Begin(device);
  const double begin = Seconds(device);
  const at::Tensor loss = loss_of(leaf);
  const double middle = Seconds(device);
  loss.backward();
  const double end = Seconds(device);
  measured.peak_bytes = meter.Peak(device);
  measured.forward.push_back(middle - begin);
  measured.backward.push_back(end - middle);
  measured.loss = loss.item<double>();
}

// Without the first run, which is for warming up.
double Median(std::vector<double> values) {
  values.erase(values.begin());
  std::nth_element(values.begin(), values.begin() + values.size() / 2, values.end());
  return values[values.size() / 2];
}

void Print(const char* name, const Measured& measured) {
  std::printf("\"%s\": {\"forward\": %.6f, \"backward\": %.6f, \"peak_bytes\": %lld, \"loss\": %.7f}", name,
              Median(measured.forward), Median(measured.backward), static_cast<long long>(measured.peak_bytes),
              measured.loss);
}

}  // namespace

int main(int argc, char** argv) {
  if (argc != 8) {
    std::fprintf(stderr, "usage: loss_bench LAYOUT TYPE POSITIONS CLASSES DEVICE THREADS RUNS\n");
    return 2;
  }
  const std::string layout = argv[1], type = argv[2];
  const int64_t positions = std::atoll(argv[3]) / 2, classes = std::atoll(argv[4]);
  const c10::Device device(argv[5]);
  at::set_num_threads(std::atoi(argv[6]));
  const c10::ScalarType dtype = type == "bfloat16" ? at::kBFloat16 : type == "float16" ? at::kHalf : at::kFloat;

  const at::Tensor last = at::randn({2, positions, classes}, at::device(device)).to(dtype);
  const at::Tensor target = at::randint(classes, {2, positions}, at::device(device).dtype(at::kLong));
  const at::Tensor seen = last.transpose(1, 2);
  const at::Tensor logits = layout == "last" ? last : layout == "seen" ? seen : seen.contiguous();
  const CrossEntropyOptions options{.class_dim = layout == "last" ? -1 : 1};
  const at::Tensor count = target.ne(options.ignored).sum();

  const auto meter = std::make_shared<PeakMeter>();
  const c10::DebugInfoGuard guard(c10::DebugInfoKind::PROFILER_STATE, meter);
  Measured ours, pytorch;
  for (int run = 0; run <= std::atoi(argv[7]); ++run) {
    Measure(logits, [&](const at::Tensor& leaf) { return CrossEntropy(leaf, target, count, options); }, *meter, ours);
    Measure(
        last, [&](const at::Tensor& leaf) { return at::cross_entropy_loss(leaf.flatten(0, 1), target.flatten()); },
        *meter, pytorch);
  }
  const double exact = at::cross_entropy_loss(last.flatten(0, 1).to(at::kFloat), target.flatten()).item<double>();
  std::printf("{\"exact\": %.7f, ", exact);
  Print("ours", ours);
  std::printf(", ");
  Print("pytorch", pytorch);
  std::printf("}\n");
}
