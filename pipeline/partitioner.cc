#include "pipeline/partitioner.h"

#include <algorithm>
#include <limits>

#include "absl/strings/str_cat.h"

namespace gpipe::pipeline {
namespace {

constexpr double kImpossible = std::numeric_limits<double>::infinity();

// Sums over any run of layers in constant time.
class Runs {
 public:
  explicit Runs(const std::vector<LayerCost>& layers) : layers_(layers), seconds_(1), memory_(1) {
    for (const LayerCost& layer : layers) {
      seconds_.push_back(seconds_.back() + layer.seconds);
      memory_.push_back(memory_.back() + layer.memory_bytes);
    }
  }

  // Of layers [begin, end); the last layer of all sends nothing.
  double Seconds(size_t begin, size_t end) const {
    const double send = end < layers_.size() ? layers_[end - 1].send_seconds : 0;
    return seconds_[end] - seconds_[begin] + send;
  }
  int64_t Memory(size_t begin, size_t end) const { return memory_[end] - memory_[begin]; }

 private:
  const std::vector<LayerCost>& layers_;
  std::vector<double> seconds_;
  std::vector<int64_t> memory_;
};

// The best cut of the first n layers into k stages, for every k and n.
class Table {
 public:
  // `combine(cost of the stages before, seconds of the last stage)` is the cost to minimise; it must not fall when
  // either grows. A stage may take neither more than `seconds_limit` nor more than `memory_limit` bytes (0: any).
  template <typename Combine>
  Table(const Runs& runs, size_t stages, size_t layers, double seconds_limit, int64_t memory_limit, Combine combine)
      : cost_(stages + 1, std::vector<double>(layers + 1, kImpossible)),
        begin_(stages + 1, std::vector<size_t>(layers + 1)) {
    cost_[0][0] = 0;
    for (size_t stage = 1; stage <= stages; ++stage) {
      for (size_t end = stage; end <= layers; ++end) {
        // From the shortest last stage on: a longer one is slower and larger.
        for (size_t begin = end; begin-- > stage - 1;) {
          const double seconds = runs.Seconds(begin, end);
          const bool too_large = memory_limit > 0 && runs.Memory(begin, end) > memory_limit;
          if (too_large || seconds > seconds_limit || combine(0, seconds) > cost_[stage][end]) break;
          const double cost = combine(cost_[stage - 1][begin], seconds);
          if (cost >= cost_[stage][end]) continue;
          cost_[stage][end] = cost;
          begin_[stage][end] = begin;
        }
      }
    }
  }

  double Cost() const { return cost_.back().back(); }

  std::vector<int64_t> Balance() const {
    std::vector<int64_t> balance(cost_.size() - 1);
    size_t end = cost_.back().size() - 1;
    for (size_t stage = balance.size(); stage > 0; --stage) {
      const size_t begin = begin_[stage][end];
      balance[stage - 1] = static_cast<int64_t>(end - begin);
      end = begin;
    }
    return balance;
  }

 private:
  std::vector<std::vector<double>> cost_;
  std::vector<std::vector<size_t>> begin_;  // Where the last stage begins.
};

}  // namespace

absl::StatusOr<std::vector<int64_t>> Partition(const std::vector<LayerCost>& layers, int stages, int64_t memory_limit) {
  if (stages < 1) return absl::InvalidArgumentError("there must be at least one stage");
  if (static_cast<size_t>(stages) > layers.size()) {
    return absl::InvalidArgumentError(
        absl::StrCat("more stages than layers (stages: ", stages, ", layers: ", layers.size(), ")"));
  }
  const Runs runs(layers);
  const auto slowest = [](double before, double seconds) { return std::max(before, seconds); };
  const Table fastest(runs, stages, layers.size(), kImpossible, memory_limit, slowest);
  if (fastest.Cost() == kImpossible) {
    return absl::ResourceExhaustedError(
        absl::StrCat("no cut into ", stages, " stages keeps every stage within ", memory_limit, " bytes"));
  }
  // Among the cuts with that slowest stage, the sum of squares is smallest where the others are most even.
  const auto squares = [](double before, double seconds) { return before + seconds * seconds; };
  const double limit = fastest.Cost() * (1 + 1e-12);  // Sums of the same numbers may differ in the last bit.
  return Table(runs, stages, layers.size(), limit, memory_limit, squares).Balance();
}

}  // namespace gpipe::pipeline
