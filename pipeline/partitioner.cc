#include "pipeline/partitioner.h"

#include <algorithm>
#include <limits>

#include "absl/strings/str_cat.h"
#include "pipeline/crossing_bytes.h"

namespace gpipe::pipeline {
namespace {

constexpr double kImpossible = std::numeric_limits<double>::infinity();

template <typename T>
std::vector<T> PrefixSums(const std::vector<T>& values) {
  std::vector<T> sums(1);
  for (const T& value : values) sums.push_back(sums.back() + value);
  return sums;
}

// What a run of layers costs on a stage, in constant time, for the runs with the end that MoveTo has chosen.
class Runs {
 public:
  explicit Runs(const PartitionRequest& request)
      : request_(request), memory_(request.memory), crossing_(request.values, layers()) {
    for (const auto& seconds : request.seconds) seconds_.push_back(PrefixSums(seconds));
  }

  size_t stages() const { return request_.seconds.size(); }
  size_t layers() const { return request_.memory.layer_bytes.size(); }
  void MoveTo(size_t end) {
    end_ = end;
    memory_.MoveTo(end);
    crossing_.MoveTo(end);
  }

  // Of each layer on the stage that is fastest at it.
  std::vector<double> LeastSeconds() const {
    std::vector<double> least = request_.seconds.front();
    for (const auto& seconds : request_.seconds) {
      for (size_t i = 0; i < least.size(); ++i) least[i] = std::min(least[i], seconds[i]);
    }
    return least;
  }

  // Of layers [begin, end) without the gradients that they send back: never less for a longer run.
  double SecondsForward(size_t stage, size_t begin) const {
    const double computing = seconds_[stage][end_] - seconds_[stage][begin];
    const bool sends = stage < request_.links.size();
    return computing + (sends ? request_.links[stage].SecondsFor(crossing_.Out(begin)) : 0);
  }
  double SecondsBack(size_t stage, size_t begin) const {
    const bool sends = stage > 0 && stage <= request_.links.size();
    return sends ? request_.links[stage - 1].SecondsFor(crossing_.Gradients(begin)) : 0;
  }

  // Whether the layers of the run are too large for the stage, as those of any longer one then are.
  bool LayersTooLarge(size_t stage, size_t begin) const {
    return LimitOf(stage) > 0 && memory_.Bytes(begin) > LimitOf(stage);
  }
  // With what the run reads of others.
  int64_t Bytes(size_t begin) const { return memory_.Bytes(begin) + request_.inputs_held * crossing_.In(begin); }
  bool TooLarge(size_t stage, size_t begin) const { return LimitOf(stage) > 0 && Bytes(begin) > LimitOf(stage); }

 private:
  int64_t LimitOf(size_t stage) const { return request_.memory_limits.empty() ? 0 : request_.memory_limits[stage]; }

  const PartitionRequest& request_;
  std::vector<std::vector<double>> seconds_;  // By stage.
  RunMemory memory_;
  CrossingBytes crossing_;
  size_t end_ = 0;
};

// The best cut of the first n layers into k stages, for every k and n.
class Table {
 public:
  // `combine(cost of the stages before, seconds of the last stage)` is the cost to minimise; it must not fall when
  // either grows, nor be larger for two stages than for one that takes the time of both. No stage may take more than
  // `seconds_limit`.
  template <typename Combine>
  Table(const PartitionRequest& request, double seconds_limit, Combine combine) : runs_(request) {
    cost_.assign(runs_.stages() + 1, std::vector<double>(runs_.layers() + 1, kImpossible));
    begin_.assign(runs_.stages() + 1, std::vector<size_t>(runs_.layers() + 1));
    cost_[0][0] = 0;
    floor_.push_back(0);
    for (const double seconds : runs_.LeastSeconds()) floor_.push_back(std::max(floor_.back(), combine(0, seconds)));
    for (size_t end = 1; end <= runs_.layers(); ++end) {
      runs_.MoveTo(end);
      for (size_t stage = 0; stage < std::min(end, runs_.stages()); ++stage) Fill(stage, end, seconds_limit, combine);
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
  // Tries every begin of `stage` as the last one, from the shortest run on: a longer one is slower and larger. Nor can
  // it be better by taking the slowest layer of those before it: it would be slower by at least as much.
  template <typename Combine>
  void Fill(size_t stage, size_t end, double seconds_limit, Combine combine) {
    double& best = cost_[stage + 1][end];
    for (size_t begin = end; begin-- > stage;) {
      const double forward = runs_.SecondsForward(stage, begin);
      if (forward > seconds_limit || combine(floor_[begin], forward) >= best || runs_.LayersTooLarge(stage, begin))
        break;
      const double seconds = forward + runs_.SecondsBack(stage, begin);
      const double cost = combine(cost_[stage][begin], seconds);
      if (cost >= best || seconds > seconds_limit || runs_.TooLarge(stage, begin)) continue;
      best = cost;
      begin_[stage + 1][end] = begin;
    }
  }

  Runs runs_;
  std::vector<double> floor_;               // What the first n layers cost at least, by their slowest one.
  std::vector<std::vector<double>> cost_;   // By number of stages and of layers.
  std::vector<std::vector<size_t>> begin_;  // Where the last stage begins.
};

absl::Status Check(const PartitionRequest& request) {
  const size_t stages = request.seconds.size(), layers = request.memory.layer_bytes.size();
  if (stages == 0) return absl::InvalidArgumentError("there must be at least one stage");
  if (stages > layers) {
    return absl::InvalidArgumentError(
        absl::StrCat("more stages than layers (stages: ", stages, ", layers: ", layers, ")"));
  }
  const auto has_all_layers = [&](const auto& seconds) { return seconds.size() == layers; };
  if (!std::all_of(request.seconds.begin(), request.seconds.end(), has_all_layers)) {
    return absl::InvalidArgumentError("seconds must be given for every layer on every stage");
  }
  if (!request.links.empty() && request.links.size() != stages - 1) {
    return absl::InvalidArgumentError("links must be given between all neighbouring stages");
  }
  const auto has_speed = [](const Link& link) { return link.latency_seconds >= 0 && link.bytes_per_second > 0; };
  if (!std::all_of(request.links.begin(), request.links.end(), has_speed)) {
    return absl::InvalidArgumentError("the speed of a link must be positive");
  }
  if (!request.memory_limits.empty() && request.memory_limits.size() != stages) {
    return absl::InvalidArgumentError("memory limits must be given for every stage");
  }
  return absl::OkStatus();
}

absl::Status NothingFits(const PartitionRequest& request) {
  const auto [least, most] = std::minmax_element(request.memory_limits.begin(), request.memory_limits.end());
  return absl::ResourceExhaustedError(absl::StrCat(
      "no cut into ", request.seconds.size(), " stages keeps every stage within ",
      *least == *most ? absl::StrCat(*most) : absl::StrCat("its worker's ", *least, " to ", *most), " bytes"));
}

}  // namespace

absl::StatusOr<std::vector<int64_t>> Partition(const PartitionRequest& request) {
  if (absl::Status status = Check(request); !status.ok()) return status;
  const auto slowest = [](double before, double seconds) { return std::max(before, seconds); };
  const Table fastest(request, kImpossible, slowest);
  if (fastest.Cost() == kImpossible) return NothingFits(request);
  // Among the cuts with that slowest stage, the sum of squares is smallest where the others are most even.
  const auto squares = [](double before, double seconds) { return before + seconds * seconds; };
  const double limit = fastest.Cost() * (1 + 1e-12);  // Sums of the same numbers may differ in the last bit.
  return Table(request, limit, squares).Balance();
}

std::vector<int64_t> RunBytes(const PartitionRequest& request, const std::vector<int64_t>& balance) {
  Runs runs(request);
  std::vector<int64_t> bytes;
  size_t begin = 0;
  for (const int64_t layers : balance) {
    runs.MoveTo(begin + layers);
    bytes.push_back(runs.Bytes(begin));
    begin += layers;
  }
  return bytes;
}

}  // namespace gpipe::pipeline
