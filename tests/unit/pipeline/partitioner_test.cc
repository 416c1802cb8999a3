#include "pipeline/partitioner.h"

#include <numeric>
#include <optional>
#include <random>
#include <utility>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

namespace gpipe::pipeline {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;
using Balance = std::vector<int64_t>;

std::vector<LayerCost> Seconds(const std::vector<double>& seconds) {
  std::vector<LayerCost> layers;
  for (double value : seconds) layers.push_back({.seconds = value});
  return layers;
}

struct Score {
  double slowest = 0;
  double squares = 0;  // How uneven the stages are.
  int64_t memory = 0;  // Of the largest stage.
};

Score ScoreOf(const std::vector<LayerCost>& layers, const Balance& balance) {
  Score score;
  size_t end = 0;
  for (int64_t count : balance) {
    double seconds = 0;
    int64_t memory = 0;
    for (int64_t i = 0; i < count; ++i, ++end) {
      seconds += layers[end].seconds;
      memory += layers[end].memory_bytes;
    }
    if (end < layers.size()) seconds += layers[end - 1].send_seconds;
    score.slowest = std::max(score.slowest, seconds);
    score.squares += seconds * seconds;
    score.memory = std::max(score.memory, memory);
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
  const Balance balance = Partition(Seconds(std::vector<double>(7, 1)), 4).value();
  EXPECT_EQ(ScoreOf(Seconds(std::vector<double>(7, 1)), balance).slowest, 2);  // torchgpipe: [1, 1, 1, 4].
  EXPECT_THAT(Partition(Seconds(std::vector<double>(8, 1)), 4).value(), ElementsAre(2, 2, 2, 2));
}

TEST(PartitionerTest, SpreadsATransformerBetweenItsEmbeddingAndItsHead) {
  std::vector<double> seconds(26, 100);
  seconds.front() = 300;
  seconds.back() = 900;
  const Balance balance = Partition(Seconds(seconds), 4).value();
  EXPECT_EQ(ScoreOf(Seconds(seconds), balance).slowest, 900);  // torchgpipe: [6, 6, 6, 8], 1600.
  EXPECT_EQ(balance.back(), 1);
  EXPECT_EQ(std::accumulate(balance.begin(), balance.end(), int64_t{0}), 26);
}

TEST(PartitionerTest, CutsOneToSixAfterFour) {
  EXPECT_THAT(Partition(Seconds({1, 2, 3, 4, 5, 6}), 2).value(), ElementsAre(4, 2));
}

TEST(PartitionerTest, AmongEqualOptimaTheOthersAreMostEven) {
  EXPECT_THAT(Partition(Seconds({9, 1, 1, 1, 1, 1, 1}), 4).value(), ElementsAre(1, 2, 2, 2));
}

TEST(PartitionerTest, LayersThatCostNothingCanBeCutToo) {
  const Balance balance = Partition(Seconds({0, 0, 0}), 3).value();
  EXPECT_THAT(balance, ElementsAre(1, 1, 1));
}

TEST(PartitionerTest, AvoidsAnExpensiveBoundary) {
  std::vector<LayerCost> layers = Seconds({1, 1, 1, 1});
  layers[1].send_seconds = 5;
  layers[2].send_seconds = 0.5;
  EXPECT_THAT(Partition(layers, 2).value(), ElementsAre(1, 3));
}

TEST(PartitionerTest, TheLastLayerSendsNothing) {
  std::vector<LayerCost> layers = Seconds({1, 1, 1, 1});
  layers[3].send_seconds = 5;
  EXPECT_THAT(Partition(layers, 2).value(), ElementsAre(2, 2));
}

TEST(PartitionerTest, KeepsTheMemoryLimitEvenIfThatIsSlower) {
  std::vector<LayerCost> layers = Seconds({1, 1, 1, 1});
  layers[0].memory_bytes = 70;
  layers[1].memory_bytes = 40;
  EXPECT_THAT(Partition(layers, 2, 100).value(), ElementsAre(1, 3));
  EXPECT_THAT(Partition(layers, 2, 110).value(), ElementsAre(2, 2));
}

TEST(PartitionerTest, SaysWhenNothingFits) {
  std::vector<LayerCost> layers = Seconds({1, 1});
  layers[1].memory_bytes = 101;
  const absl::Status status = Partition(layers, 2, 100).status();
  EXPECT_EQ(status.code(), absl::StatusCode::kResourceExhausted);
  EXPECT_THAT(std::string(status.message()), HasSubstr("within 100 bytes"));
}

TEST(PartitionerTest, RefusesMoreStagesThanLayers) {
  EXPECT_THAT(std::string(Partition(Seconds({1}), 2).status().message()),
              HasSubstr("more stages than layers (stages: 2, layers: 1)"));
  EXPECT_EQ(Partition(Seconds({1}), 0).status().code(), absl::StatusCode::kInvalidArgument);
  EXPECT_EQ(Partition({}, 1).status().code(), absl::StatusCode::kInvalidArgument);
}

TEST(PartitionerTest, IsAsGoodAsTryingEveryCut) {
  std::mt19937 random(1);
  const auto upto = [&](int limit) { return static_cast<int>(random() % (limit + 1)); };
  for (int round = 0; round < 500; ++round) {
    const int count = 1 + upto(9), stages = 1 + upto(count - 1);
    const int64_t limit = round % 2 == 0 ? 0 : 20 + upto(60);
    std::vector<LayerCost> layers(count);
    for (LayerCost& layer : layers) {  // Whole numbers, so that sums are exact.
      layer = {.seconds = double(upto(20)), .memory_bytes = upto(20), .send_seconds = double(upto(5))};
    }
    std::optional<Score> best;
    Balance prefix;
    ForEachBalance(count, stages, prefix, [&](const Balance& balance) {
      const Score score = ScoreOf(layers, balance);
      if (limit > 0 && score.memory > limit) return;
      if (!best || std::pair(score.slowest, score.squares) < std::pair(best->slowest, best->squares)) best = score;
    });
    const absl::StatusOr<Balance> balance = Partition(layers, stages, limit);
    ASSERT_EQ(balance.ok(), best.has_value()) << round;
    if (!best) continue;
    const Score score = ScoreOf(layers, *balance);
    ASSERT_EQ(static_cast<int>(balance->size()), stages);
    ASSERT_EQ(score.slowest, best->slowest) << round;
    ASSERT_EQ(score.squares, best->squares) << round;
    ASSERT_TRUE(limit == 0 || score.memory <= limit) << round;
  }
}

// 2000 layers on 64 stages: the size a plan must handle while a user waits.
TEST(PartitionerTest, CutsThousandsOfLayers) {
  std::mt19937 random(2);
  std::vector<double> seconds(2000);
  for (double& value : seconds) value = 90 + random() % 21;
  const Balance balance = Partition(Seconds(seconds), 64).value();
  const double mean = std::accumulate(seconds.begin(), seconds.end(), 0.0) / 64;
  EXPECT_EQ(std::accumulate(balance.begin(), balance.end(), int64_t{0}), 2000);
  EXPECT_LT(ScoreOf(Seconds(seconds), balance).slowest, mean + 110);
}

}  // namespace
}  // namespace gpipe::pipeline
