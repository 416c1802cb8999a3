#include "worker/model/cross_entropy.h"

#include <ATen/ATen.h>
#include <ATen/OpMathType.h>
#include <ATen/Parallel.h>
#include <ATen/TensorUtils.h>
#include <torch/csrc/autograd/custom_function.h>

#include <algorithm>

#include "worker/model/cross_entropy_kernels.h"

namespace gpipe::worker {
namespace {

using ::torch::autograd::AutogradContext;
using ::torch::autograd::variable_list;

// Where no kernel of our own fits (cross_entropy_kernels.h). A block on a CPU stays in a core's cache between the
// operators that go over it; on a GPU in the L2 cache, while it is large enough to keep all multiprocessors busy.
constexpr int64_t kCpuBlockBytes = int64_t{1} << 20, kGpuBlockBytes = int64_t{64} << 20;
// So many positions beside each other fill a cache line of floats, where classes do not lie beside each other.
constexpr int64_t kStridedPositions = 16;
// CUDA's softmax over strided classes has a thread for a position: with many classes a copy is far cheaper.
constexpr int64_t kFewClasses = 1024;

// [positions, classes], where the output can be viewed so (on a GPU also by a copy), or else
// [samples, classes, positions]. The classes are dimension 1 of both.
at::Tensor Positions(const at::Tensor& output, int64_t class_dim) {
  const at::Tensor last = output.movedim(class_dim, -1);
  const int64_t classes = last.size(-1);
  const std::vector<int64_t> flat = {last.numel() / std::max<int64_t>(classes, 1), classes};
  const bool is_view = at::detail::computeStride(last.sizes(), last.strides(), flat).has_value();
  if (is_view || (last.is_cuda() && classes > kFewClasses)) return last.reshape(flat);
  return last.flatten(1, -2).movedim(-1, 1);
}

// One class for each of the positions of `logits`.
at::Tensor TargetsOf(const at::Tensor& logits, const at::Tensor& target) {
  return logits.dim() == 2 ? target.reshape({-1, 1}) : target.reshape({logits.size(0), 1, logits.size(2)});
}

c10::ScalarType WideType(const at::Tensor& logits) { return at::toOpMathType(logits.scalar_type()); }

// Some positions of some samples.
struct Block {
  int64_t sample, samples, position, positions;

  at::Tensor Of(const at::Tensor& tensor) const {
    const at::Tensor part = tensor.narrow(0, sample, samples);
    return part.dim() == 2 ? part : part.narrow(2, position, positions);
  }
};

// How many positions are done at once.
int64_t BlockPositions(const at::Tensor& logits, int64_t block_bytes) {
  if (block_bytes == 0) block_bytes = logits.is_cuda() ? kGpuBlockBytes : kCpuBlockBytes * at::get_num_threads();
  const auto bytes = static_cast<int64_t>(c10::elementSize(WideType(logits)));
  const int64_t positions = block_bytes / std::max<int64_t>(logits.size(1) * bytes, 1);
  return std::max<int64_t>(positions, logits.dim() == 2 ? 1 : kStridedPositions);
}

template <typename Visit>
void ForEachBlock(const at::Tensor& logits, int64_t block_bytes, const Visit& visit) {
  const int64_t samples = logits.size(0), positions = logits.dim() == 2 ? 1 : logits.size(2);
  const int64_t at_once = BlockPositions(logits, block_bytes);
  const int64_t positions_at_once = std::min(positions, at_once);
  const int64_t samples_at_once = std::max<int64_t>(at_once / std::max<int64_t>(positions, 1), 1);
  for (int64_t sample = 0; sample < samples; sample += samples_at_once) {
    for (int64_t position = 0; position < positions; position += positions_at_once) {
      visit(Block{sample, std::min(samples_at_once, samples - sample), position,
                  std::min(positions_at_once, positions - position)});
    }
  }
}

at::Tensor LogProbabilities(const at::Tensor& logits) {
  if (logits.is_cuda() && logits.scalar_type() == at::kHalf) return at::_log_softmax(logits, 1, /*half_to_float=*/true);
  return at::_log_softmax(logits.to(WideType(logits)), 1, /*half_to_float=*/false);
}

// In the logits' type, but for strided classes on a CPU, whose kernel is slow in halves.
at::Tensor Probabilities(const at::Tensor& logits) {
  const bool strided = logits.is_cpu() && logits.dim() == 3;
  return at::_softmax(strided ? logits.to(WideType(logits)) : logits, 1, /*half_to_float=*/false);
}

// What label smoothing makes of a target: so much of it, and so much of every class.
struct Smoothed {
  Smoothed(double smoothing, int64_t classes)
      : target(1 - smoothing), each(smoothing / static_cast<double>(std::max<int64_t>(classes, 1))) {}

  const double target, each;
};

// The same by operators, [samples, 1, positions] where the logits are so, in their wide type, without what only the
// kernels need.
RowStatistics StatisticsByBlocks(const at::Tensor& logits, const at::Tensor& target, bool needs_all,
                                 int64_t block_bytes) {
  RowStatistics rows;
  rows.of_target = at::empty(target.sizes(), logits.options().dtype(WideType(logits)));
  if (needs_all) rows.of_all = at::empty_like(rows.of_target);
  ForEachBlock(logits, block_bytes, [&](const Block& block) {
    const at::Tensor log_probabilities = LogProbabilities(block.Of(logits));
    at::Tensor picked = block.Of(rows.of_target);
    at::gather_out(picked, log_probabilities, 1, block.Of(target));
    if (!needs_all) return;
    at::Tensor sums = block.Of(rows.of_all);
    at::sum_out(sums, log_probabilities, at::IntArrayRef({1}), /*keepdim=*/true);
  });
  return rows;
}

at::Tensor GradientByBlocks(const at::Tensor& logits, const at::Tensor& target, const at::Tensor& at_target,
                            double each, const at::Tensor& weight, int64_t block_bytes) {
  const at::Tensor gradient = at::empty_like(logits);
  ForEachBlock(logits, block_bytes, [&](const Block& block) {
    at::Tensor difference = Probabilities(block.Of(logits));
    if (each != 0) difference.sub_(each);
    difference.scatter_(1, block.Of(target), block.Of(at_target).to(difference.scalar_type()));
    at::Tensor part = block.Of(gradient);
    at::mul_out(part, difference, block.Of(weight));
  });
  return gradient;
}

struct CrossEntropyFunction : torch::autograd::Function<CrossEntropyFunction> {
  // `target` is within the classes, also where it is `ignored`.
  static at::Tensor forward(AutogradContext* context, const at::Tensor& logits, const at::Tensor& target,
                            const at::Tensor& ignored, const at::Tensor& count, double smoothing, int64_t block_bytes) {
    const Smoothed mix(smoothing, logits.size(1));
    const RowStatistics rows = HaveRowKernels(logits) ? StatisticsOfRows(logits, target)
                                                      : StatisticsByBlocks(logits, target, mix.each != 0, block_bytes);
    context->save_for_backward({logits, target, ignored, count, rows.of_target, rows.largest, rows.sum});
    context->saved_data["smoothing"] = smoothing;
    context->saved_data["block_bytes"] = block_bytes;
    const at::Tensor mixed = mix.each == 0 ? rows.of_target : rows.of_target * mix.target + rows.of_all * mix.each;
    return mixed.masked_fill(ignored, 0).sum().neg() / count;
  }

  static variable_list backward(AutogradContext* context, const variable_list& gradients) {
    const variable_list saved = context->get_saved_variables();
    const at::Tensor &logits = saved[0], &target = saved[1], &ignored = saved[2], &of_target = saved[4];
    const Smoothed mix(context->saved_data["smoothing"].toDouble(), logits.size(1));
    const at::Tensor weight = at::where(ignored, at::zeros({}, of_target.options()), gradients[0] / saved[3]);
    // Probability less 1 is taken from the logarithm: of a rounded probability near 1 nothing would be left.
    at::Tensor at_target = at::expm1(of_target);
    if (mix.each != 0) at_target.add_(1 - mix.target - mix.each);
    const bool by_rows = saved[5].defined();
    const at::Tensor gradient =
        by_rows
            ? GradientOfRows({logits, target, saved[5], saved[6]}, at_target, mix.each, weight)
            : GradientByBlocks(logits, target, at_target, mix.each, weight, context->saved_data["block_bytes"].toInt());
    return {gradient, {}, {}, {}, {}, {}};
  }
};

}  // namespace

at::Tensor CrossEntropy(const at::Tensor& output, const at::Tensor& target, const at::Tensor& count,
                        const CrossEntropyOptions& options) {
  const at::Tensor logits = Positions(output, options.class_dim);
  const at::Tensor classes = TargetsOf(logits, target);
  const at::Tensor ignored = classes.eq(options.ignored);
  return CrossEntropyFunction::apply(logits, classes.masked_fill(ignored, 0), ignored, count, options.smoothing,
                                     options.block_bytes);
}

at::Tensor ClassHits(const at::Tensor& output, const at::Tensor& target, const CrossEntropyOptions& options) {
  const at::Tensor logits = Positions(output.detach(), options.class_dim);
  const at::Tensor classes = TargetsOf(logits, target);
  const at::Tensor largest = at::empty_like(classes);
  ForEachBlock(logits, options.block_bytes, [&](const Block& block) {
    at::Tensor part = block.Of(largest);
    part.copy_(block.Of(logits).to(WideType(logits)).contiguous().argmax(1, /*keepdim=*/true));
  });
  const at::Tensor counts = classes.ne(options.ignored);
  return at::stack({largest.eq(classes).logical_and(counts).sum(), counts.sum()});
}

}  // namespace gpipe::worker
