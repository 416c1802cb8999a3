#include "orchestrator/planning/pass_balance.h"

#include <algorithm>
#include <cstddef>
#include <utility>

namespace gpipe::orchestrator {
namespace {

constexpr double kWorthIt = 0.999;  // A step that is faster by less is not, as far as measurements tell.
constexpr int kMostRounds = 20;     // Over all borders; the first few move them.

size_t BeginOf(size_t stage, const std::vector<size_t>& ends) { return stage == 0 ? 0 : ends[stage - 1]; }

// What any run of layers takes on any stage, in constant time.
class Pass {
 public:
  explicit Pass(const PassSeconds& seconds) : sending_(seconds.sending) {
    for (const std::vector<double>& layers : seconds.layers) {
      std::vector<double>& sums = sums_.emplace_back(1);
      for (const double layer : layers) sums.push_back(sums.back() + layer);
    }
  }

  double Seconds(size_t stage, size_t begin, size_t end) const {
    return sums_[stage][end] - sums_[stage][begin] + sending_[stage];
  }

  // Of the stages for which `counts`.
  template <typename Counts>
  double Slowest(const std::vector<size_t>& ends, Counts counts) const {
    double slowest = 0;
    for (size_t stage = 0; stage < ends.size(); ++stage) {
      if (counts(stage)) slowest = std::max(slowest, Seconds(stage, BeginOf(stage, ends), ends[stage]));
    }
    return slowest;
  }

 private:
  std::vector<std::vector<double>> sums_;  // Of the first n layers, by stage.
  const std::vector<double> sending_;
};

class Borders {
 public:
  Borders(const StepSeconds& seconds, const std::vector<int64_t>& balance)
      : passes_{Pass(seconds.forward), Pass(seconds.backward)} {
    size_t end = 0;
    for (const int64_t layers : balance) ends_.push_back(end += static_cast<size_t>(layers));
  }

  double Slowest() const {
    const auto all = [](size_t) { return true; };
    return passes_[0].Slowest(ends_, all) + passes_[1].Slowest(ends_, all);
  }

  // Moves the border behind a stage; false where it stays.
  bool Move(size_t stage, absl::FunctionRef<bool(const std::vector<int64_t>&)> allowed) {
    const size_t was = ends_[stage];
    for (const auto& [seconds, border] : Faster(stage)) {
      ends_[stage] = border;
      if (allowed(Balance())) return true;
    }
    ends_[stage] = was;
    return false;
  }

  std::vector<int64_t> Balance() const {
    std::vector<int64_t> balance;
    for (size_t stage = 0; stage < ends_.size(); ++stage) {
      balance.push_back(static_cast<int64_t>(ends_[stage] - BeginOf(stage, ends_)));
    }
    return balance;
  }

 private:
  // Places of the border behind a stage, the best one first.
  std::vector<std::pair<double, size_t>> Faster(size_t stage) const {
    const size_t first = BeginOf(stage, ends_), last = ends_[stage + 1];
    const auto beside = [&](const Pass& pass) {
      return pass.Slowest(ends_, [&](size_t other) { return other != stage && other != stage + 1; });
    };
    const double besides[] = {beside(passes_[0]), beside(passes_[1])};
    const auto seconds = [&](size_t border) {
      double sum = 0;
      for (int i = 0; i < 2; ++i) {
        sum += std::max(
            {besides[i], passes_[i].Seconds(stage, first, border), passes_[i].Seconds(stage + 1, border, last)});
      }
      return sum;
    };
    std::vector<std::pair<double, size_t>> faster;
    for (size_t border = first + 1; border < last; ++border) {
      if (seconds(border) < kWorthIt * seconds(ends_[stage])) faster.emplace_back(seconds(border), border);
    }
    std::ranges::sort(faster);
    return faster;
  }

  const Pass passes_[2];
  std::vector<size_t> ends_;  // Of each stage's layers.
};

}  // namespace

double SlowestPasses(const StepSeconds& seconds, const std::vector<int64_t>& balance) {
  return Borders(seconds, balance).Slowest();
}

std::vector<int64_t> BalancePasses(const StepSeconds& seconds, const std::vector<int64_t>& balance,
                                   absl::FunctionRef<bool(const std::vector<int64_t>&)> allowed) {
  Borders borders(seconds, balance);
  bool moved = true;
  for (int round = 0; moved && round < kMostRounds; ++round) {
    moved = false;
    for (size_t stage = 0; stage + 1 < balance.size(); ++stage) moved |= borders.Move(stage, allowed);
  }
  return borders.Balance();
}

}  // namespace gpipe::orchestrator
