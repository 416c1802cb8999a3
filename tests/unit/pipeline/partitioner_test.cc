#include "pipeline/partitioner.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <numeric>
#include <optional>
#include <random>
#include <utility>

namespace gpipe::pipeline {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;
using Balance = std::vector<int64_t>;

// The same layers on every stage.
PartitionRequest Uniform(const std::vector<double>& seconds, int stages) {
  PartitionRequest request;
  request.seconds.assign(stages, seconds);
  request.memory.layer_bytes.assign(seconds.size(), 0);
  return request;
}

// Each layer's output is read by the next one.
void AddChain(const std::vector<int64_t>& bytes, bool has_gradient, PartitionRequest& request) {
  for (int i = 0; i < static_cast<int>(bytes.size()); ++i) {
    request.values.push_back({.made_by = i, .read_by = {i + 1}, .bytes = bytes[i], .has_gradient = has_gradient});
  }
}

struct Score {
  double slowest = 0;
  double squares = 0;  // How uneven the stages are.
  bool fits = true;    // Within the memory limits.
};

// Bytes of the values that `counts`.
template <typename Counts>
int64_t BytesWhere(const PartitionRequest& request, const Counts& counts) {
  int64_t bytes = 0;
  for (const LayerValue& value : request.values) bytes += counts(value) ? value.bytes : 0;
  return bytes;
}

// As the header says it, value by value.
Score ScoreOf(const PartitionRequest& request, const Balance& balance) {
  Score score;
  int begin = 0;
  for (size_t stage = 0; stage < balance.size(); ++stage) {
    const int end = begin + static_cast<int>(balance[stage]);
    const auto& of_stage = request.seconds[stage];
    const auto within = [&](int layer) { return layer >= begin && layer < end; };
    const auto read_within = [&](const LayerValue& v) {
      return std::any_of(v.read_by.begin(), v.read_by.end(), within);
    };
    const int64_t out = BytesWhere(request, [&](const LayerValue& v) {
      return within(v.made_by) && !v.read_by.empty() && v.read_by.back() >= end;
    });
    const int64_t in = BytesWhere(request, [&](const LayerValue& v) { return v.made_by < begin && read_within(v); });
    const int64_t back =
        BytesWhere(request, [&](const LayerValue& v) { return v.made_by < begin && v.has_gradient && read_within(v); });

    double seconds = std::accumulate(of_stage.begin() + begin, of_stage.begin() + end, 0.0);
    if (stage < request.links.size()) seconds += request.links[stage].SecondsFor(out);
    if (stage > 0 && !request.links.empty()) seconds += request.links[stage - 1].SecondsFor(back);
    const auto memory = request.memory.layer_bytes.begin();
    int64_t bytes = std::accumulate(memory + begin, memory + end, request.inputs_held * in);
    for (const KeptMemory& kept : request.memory.kept) {
      if (within(kept.made_by) && within(kept.first_keeper)) bytes += kept.bytes;
    }
    const auto working = request.memory.working_bytes.begin();
    if (!request.memory.working_bytes.empty()) bytes += *std::max_element(working + begin, working + end);
    if (!request.memory_limits.empty()) {
      score.fits &= request.memory_limits[stage] == 0 || bytes <= request.memory_limits[stage];
    }
    score.slowest = std::max(score.slowest, seconds);
    score.squares += seconds * seconds;
    begin = end;
  }
  return score;
}

// Calls `visit` with every balance of `layers` layers in `stages` stages.
template <typename Visit>
void ForEachBalance(int64_t layers, int stages, Balance& prefix, const Visit& visit) {
  if (stages == 1) {
    prefix.push_back(layers);
    visit(prefix);
    prefix.pop_back();
    return;
  }
  for (int64_t count = 1; count <= layers - (stages - 1); ++count) {
    prefix.push_back(count);
    ForEachBalance(layers - count, stages - 1, prefix, visit);
    prefix.pop_back();
  }
}

TEST(PartitionerTest, SpreadsEqualLayers) {
  const PartitionRequest seven = Uniform(std::vector<double>(7, 1), 4);
  EXPECT_EQ(ScoreOf(seven, Partition(seven).value()).slowest, 2);  // torchgpipe: [1, 1, 1, 4].
  EXPECT_THAT(Partition(Uniform(std::vector<double>(8, 1), 4)).value(), ElementsAre(2, 2, 2, 2));
}

TEST(PartitionerTest, SpreadsATransformerBetweenItsEmbeddingAndItsHead) {
  std::vector<double> seconds(26, 100);
  seconds.front() = 300;
  seconds.back() = 900;
  const PartitionRequest request = Uniform(seconds, 4);
  const Balance balance = Partition(request).value();
  EXPECT_EQ(ScoreOf(request, balance).slowest, 900);  // torchgpipe: [6, 6, 6, 8], 1600.
  EXPECT_EQ(balance.back(), 1);
  EXPECT_EQ(std::accumulate(balance.begin(), balance.end(), int64_t{0}), 26);
}

TEST(PartitionerTest, CutsOneToSixAfterFour) {
  EXPECT_THAT(Partition(Uniform({1, 2, 3, 4, 5, 6}, 2)).value(), ElementsAre(4, 2));
}

TEST(PartitionerTest, AmongEqualOptimaTheOthersAreMostEven) {
  EXPECT_THAT(Partition(Uniform({9, 1, 1, 1, 1, 1, 1}, 4)).value(), ElementsAre(1, 2, 2, 2));
}

TEST(PartitionerTest, LayersThatCostNothingCanBeCutToo) {
  EXPECT_THAT(Partition(Uniform({0, 0, 0}, 3)).value(), ElementsAre(1, 1, 1));
}

TEST(PartitionerTest, AFasterWorkerGetsMoreLayers) {
  PartitionRequest request = Uniform(std::vector<double>(12, 2), 2);
  request.seconds[1].assign(12, 1);  // Twice as fast.
  EXPECT_THAT(Partition(request).value(), ElementsAre(4, 8));
  std::swap(request.seconds[0], request.seconds[1]);
  EXPECT_THAT(Partition(request).value(), ElementsAre(8, 4));
}

TEST(PartitionerTest, AWorkerThatIsSlowAtOneKindOfLayerGetsTheOthers) {
  PartitionRequest request = Uniform({1, 1, 1, 1, 1, 1}, 2);
  request.seconds[1] = {9, 9, 9, 9, 1, 1};
  EXPECT_THAT(Partition(request).value(), ElementsAre(4, 2));
}

TEST(PartitionerTest, AvoidsAnExpensiveBoundary) {
  PartitionRequest request = Uniform({1, 1, 1, 1}, 2);
  AddChain({10, 50, 5}, /*has_gradient=*/false, request);
  request.links = {{.latency_seconds = 0, .bytes_per_second = 10}};
  EXPECT_THAT(Partition(request).value(), ElementsAre(1, 3));
}

TEST(PartitionerTest, WithoutLinksSendingCostsNothing) {
  PartitionRequest request = Uniform({1, 1, 1, 1}, 2);
  AddChain({10, 50, 5}, /*has_gradient=*/true, request);
  EXPECT_THAT(Partition(request).value(), ElementsAre(2, 2));
}

TEST(PartitionerTest, EveryStageSendsOverItsOwnLink) {
  PartitionRequest request = Uniform(std::vector<double>(7, 1), 3);
  AddChain(std::vector<int64_t>(6, 1), /*has_gradient=*/false, request);
  request.links = {{.latency_seconds = 2}, {.latency_seconds = 0}};
  EXPECT_THAT(Partition(request).value(), ElementsAre(1, 3, 3));
}

TEST(PartitionerTest, GradientsAreSentBackByTheReader) {
  PartitionRequest request = Uniform({1, 1, 1, 1}, 2);
  request.values = {{.made_by = 0, .read_by = {3}, .bytes = 10}};
  request.links = {{.latency_seconds = 0, .bytes_per_second = 5}};
  EXPECT_THAT(Partition(request).value(), ElementsAre(1, 3));  // 1 + 2 and 3.
  request.values[0].has_gradient = true;
  EXPECT_THAT(Partition(request).value(), ElementsAre(2, 2));  // 2 + 2 and 2 + 2.
}

TEST(PartitionerTest, AValueOfSeveralReadersIsSentOnce) {
  PartitionRequest request = Uniform({1, 1, 1, 1}, 2);
  request.values = {{.made_by = 1, .read_by = {2, 3}, .bytes = 5}};
  request.links = {{.latency_seconds = 0, .bytes_per_second = 10}};
  EXPECT_THAT(Partition(request).value(), ElementsAre(2, 2));  // 2.5 and 2; sent twice, 1 and 3 would be better.
}

TEST(PartitionerTest, AnInputOfTheModelIsHeldButNotSent) {
  PartitionRequest request = Uniform({1, 1, 1, 1}, 2);
  request.values = {{.read_by = {1, 2}, .bytes = 30}};
  request.links = {{.latency_seconds = 5}};
  EXPECT_THAT(Partition(request).value(), ElementsAre(2, 2));
  request.inputs_held = 2;
  request.memory_limits = {50, 60};
  EXPECT_THAT(Partition(request).value(), ElementsAre(1, 3));
}

TEST(PartitionerTest, KeepsTheMemoryLimitEvenIfThatIsSlower) {
  PartitionRequest request = Uniform({1, 1, 1, 1}, 2);
  request.memory.layer_bytes = {70, 40, 0, 0};
  request.memory_limits = {100, 100};
  EXPECT_THAT(Partition(request).value(), ElementsAre(1, 3));
  request.memory_limits = {110, 1};
  EXPECT_THAT(Partition(request).value(), ElementsAre(2, 2));
  request.memory_limits = {80, 0};
  EXPECT_THAT(Partition(request).value(), ElementsAre(1, 3));
}

TEST(PartitionerTest, KeptMemoryCountsWhereItIsMadeAndKept) {
  PartitionRequest request = Uniform({1, 1, 1, 1}, 2);
  request.memory.kept = {{.made_by = 0, .first_keeper = 2, .bytes = 50}, {.made_by = 1, .first_keeper = 1, .bytes = 8}};
  EXPECT_THAT(RunBytes(request, {2, 2}), ElementsAre(8, 0)) << "the second stage has that from the first one";
  EXPECT_THAT(RunBytes(request, {3, 1}), ElementsAre(58, 0));
  EXPECT_THAT(RunBytes(request, {1, 3}), ElementsAre(0, 8));
}

TEST(PartitionerTest, WorkingMemoryIsThatOfTheLayerThatNeedsMost) {
  PartitionRequest request = Uniform({1, 1, 1, 1}, 2);
  request.memory.working_bytes = {5, 7, 3, 1};
  EXPECT_THAT(RunBytes(request, {2, 2}), ElementsAre(7, 3));
  EXPECT_THAT(RunBytes(request, {1, 3}), ElementsAre(5, 7));
}

TEST(PartitionerTest, SaysWhenNothingFits) {
  PartitionRequest request = Uniform({1, 1}, 2);
  request.memory.layer_bytes = {0, 101};
  request.memory_limits = {100, 100};
  const absl::Status status = Partition(request).status();
  EXPECT_EQ(status.code(), absl::StatusCode::kResourceExhausted);
  EXPECT_THAT(std::string(status.message()), HasSubstr("within 100 bytes"));
  request.memory_limits = {200, 100};
  EXPECT_THAT(std::string(Partition(request).status().message()), HasSubstr("within its worker's 100 to 200 bytes"));
}

TEST(PartitionerTest, RefusesWhatDoesNotFitTogether) {
  EXPECT_THAT(std::string(Partition(Uniform({1}, 2)).status().message()),
              HasSubstr("more stages than layers (stages: 2, layers: 1)"));
  EXPECT_EQ(Partition(Uniform({1}, 0)).status().code(), absl::StatusCode::kInvalidArgument);
  EXPECT_EQ(Partition(Uniform({}, 1)).status().code(), absl::StatusCode::kInvalidArgument);
  PartitionRequest request = Uniform({1, 1}, 2);
  request.links.resize(2);
  EXPECT_EQ(Partition(request).status().code(), absl::StatusCode::kInvalidArgument);
  request.links = {{.latency_seconds = 0, .bytes_per_second = 0}};
  EXPECT_EQ(Partition(request).status().code(), absl::StatusCode::kInvalidArgument);
  request = Uniform({1, 1}, 2);
  request.seconds[1].pop_back();
  EXPECT_EQ(Partition(request).status().code(), absl::StatusCode::kInvalidArgument);
  request = Uniform({1, 1}, 2);
  request.memory_limits = {1};
  EXPECT_EQ(Partition(request).status().code(), absl::StatusCode::kInvalidArgument);
}

// Everything at once, in whole numbers, so that sums are exact.
PartitionRequest RandomRequest(std::mt19937& random, int layers, int stages) {
  const auto upto = [&](int limit) { return static_cast<int>(random() % (limit + 1)); };
  PartitionRequest request = Uniform(std::vector<double>(layers), stages);
  for (auto& seconds : request.seconds) {
    for (double& value : seconds) value = upto(20);
  }
  for (int64_t& bytes : request.memory.layer_bytes) bytes = upto(20);
  for (int i = upto(layers); i > 0; --i) {
    const int made_by = upto(layers - 1);
    request.memory.kept.push_back(
        {.made_by = made_by, .first_keeper = made_by + upto(layers - 1 - made_by), .bytes = upto(5)});
  }
  if (upto(1) > 0) {
    for (int i = 0; i < layers; ++i) request.memory.working_bytes.push_back(upto(9));
  }
  for (int i = upto(2 * layers); i > 0; --i) {
    LayerValue value{.made_by = upto(layers) - 1, .read_by = {}, .bytes = upto(5), .has_gradient = upto(1) == 1};
    if (value.made_by == LayerValue::kModelInput) value.has_gradient = false;
    for (int reader = value.made_by + 1; reader < layers; ++reader) {
      if (upto(3) == 0) value.read_by.push_back(reader);
    }
    request.values.push_back(value);
  }
  request.inputs_held = upto(2);
  if (upto(2) > 0) {
    for (int i = 1; i < stages; ++i) {
      request.links.push_back({.latency_seconds = double(upto(3)), .bytes_per_second = 1.0 / (1 << upto(2))});
    }
  }
  if (upto(1) > 0) {
    for (int i = 0; i < stages; ++i) request.memory_limits.push_back(upto(4) == 0 ? 0 : 20 + upto(60));
  }
  return request;
}

TEST(PartitionerTest, IsAsGoodAsTryingEveryCut) {
  std::mt19937 random(1);
  int possible = 0;
  for (int round = 0; round < 2000; ++round) {
    const int layers = 1 + random() % 10, stages = 1 + random() % layers;
    const PartitionRequest request = RandomRequest(random, layers, stages);
    std::optional<Score> best;
    Balance prefix;
    ForEachBalance(layers, stages, prefix, [&](const Balance& balance) {
      const Score score = ScoreOf(request, balance);
      if (!score.fits) return;
      if (!best || std::pair(score.slowest, score.squares) < std::pair(best->slowest, best->squares)) best = score;
    });
    const absl::StatusOr<Balance> balance = Partition(request);
    ASSERT_EQ(balance.ok(), best.has_value()) << round;
    if (!best) continue;
    ++possible;
    const Score score = ScoreOf(request, *balance);
    ASSERT_EQ(static_cast<int>(balance->size()), stages);
    ASSERT_EQ(score.slowest, best->slowest) << round;
    ASSERT_EQ(score.squares, best->squares) << round;
    ASSERT_TRUE(score.fits) << round;
  }
  EXPECT_GT(possible, 1000);
}

// 2000 layers on 64 stages: the size a plan must handle while a user waits. bench/partition_time.cc measures it.
TEST(PartitionerTest, CutsThousandsOfLayers) {
  std::mt19937 random(2);
  std::vector<double> seconds(2000);
  for (double& value : seconds) value = 90 + random() % 21;
  const PartitionRequest request = Uniform(seconds, 64);
  const Balance balance = Partition(request).value();
  const double mean = std::accumulate(seconds.begin(), seconds.end(), 0.0) / 64;
  EXPECT_EQ(std::accumulate(balance.begin(), balance.end(), int64_t{0}), 2000);
  EXPECT_LT(ScoreOf(request, balance).slowest, mean + 110);
}

}  // namespace
}  // namespace gpipe::pipeline
