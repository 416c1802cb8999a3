#include "orchestrator/planning/phase_balance.h"

#include <algorithm>
#include <cstddef>
#include <utility>

namespace gpipe::orchestrator {
namespace {

constexpr double kWorthIt = 0.999;  // A step that is faster by less is not, as far as measurements tell.
constexpr int kMostRounds = 20;     // Over all borders; the first few move them.

// The seconds of any run of layers on any stage, in one phase.
class Phase {
 public:
  explicit Phase(const std::vector<std::vector<double>>& seconds) {
    for (const std::vector<double>& of_stage : seconds) {
      std::vector<double>& sums = sums_.emplace_back(1);
      for (const double layer : of_stage) sums.push_back(sums.back() + layer);
    }
  }

  double Seconds(size_t stage, size_t begin, size_t end) const { return sums_[stage][end] - sums_[stage][begin]; }

  // Of the stages but `left` and the one behind it.
  double SlowestBeside(size_t left, const std::vector<size_t>& ends) const {
    double slowest = 0;
    for (size_t stage = 0; stage < ends.size(); ++stage) {
      if (stage != left && stage != left + 1)
        slowest = std::max(slowest, Seconds(stage, BeginOf(stage, ends), ends[stage]));
    }
    return slowest;
  }

  static size_t BeginOf(size_t stage, const std::vector<size_t>& ends) { return stage == 0 ? 0 : ends[stage - 1]; }

 private:
  std::vector<std::vector<double>> sums_;  // Of the first n layers, by stage.
};

class Borders {
 public:
  Borders(const PhaseSeconds& seconds, const std::vector<int64_t>& balance)
      : phases_{Phase(seconds.forward), Phase(seconds.backward)} {
    size_t end = 0;
    for (const int64_t layers : balance) ends_.push_back(end += static_cast<size_t>(layers));
  }

  // Moves the border behind a stage; false where it is best.
  bool Move(size_t stage, absl::FunctionRef<bool(const std::vector<int64_t>&)> allowed) {
    const size_t first = Phase::BeginOf(stage, ends_), last = ends_[stage + 1], was = ends_[stage];
    const double beside[] = {phases_[0].SlowestBeside(stage, ends_), phases_[1].SlowestBeside(stage, ends_)};
    const auto step = [&](size_t border) {
      double sum = 0;
      for (int i = 0; i < 2; ++i) {
        sum += std::max(
            {beside[i], phases_[i].Seconds(stage, first, border), phases_[i].Seconds(stage + 1, border, last)});
      }
      return sum;
    };
    std::vector<std::pair<double, size_t>> faster;
    for (size_t border = first + 1; border < last; ++border) {
      if (step(border) < kWorthIt * step(was)) faster.emplace_back(step(border), border);
    }
    std::ranges::sort(faster);
    const auto found = std::ranges::find_if(faster, [&](const auto& candidate) {
      ends_[stage] = candidate.second;
      return allowed(Balance());
    });
    if (found == faster.end()) ends_[stage] = was;
    return found != faster.end();
  }

  std::vector<int64_t> Balance() const {
    std::vector<int64_t> balance;
    for (size_t stage = 0; stage < ends_.size(); ++stage) {
      balance.push_back(static_cast<int64_t>(ends_[stage] - Phase::BeginOf(stage, ends_)));
    }
    return balance;
  }

 private:
  const Phase phases_[2];
  std::vector<size_t> ends_;  // Of each stage's layers.
};

}  // namespace

std::vector<int64_t> BalancePhases(const PhaseSeconds& seconds, std::vector<int64_t> balance,
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
