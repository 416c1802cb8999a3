#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <numeric>

#include "pipeline/schedule.h"

namespace gpipe::pipeline {
namespace {

using ::testing::ElementsAre;

TEST(MicroBatchTest, LargerOnesComeFirst) {
  EXPECT_THAT(MicroBatchSizes(7, 4), ElementsAre(2, 2, 2, 1));
  EXPECT_THAT(MicroBatchSizes(8, 4), ElementsAre(2, 2, 2, 2));
}

// torch.chunk makes three of these: 2, 2, 1.
TEST(MicroBatchTest, AsManyAsAskedForWhenThereAreEnoughSamples) {
  EXPECT_THAT(MicroBatchSizes(5, 4), ElementsAre(2, 1, 1, 1));
}

TEST(MicroBatchTest, NoneIsEmptyWhenThereAreTooFewSamples) {
  EXPECT_THAT(MicroBatchSizes(2, 4), ElementsAre(1, 1));
  EXPECT_THAT(MicroBatchSizes(1, 1), ElementsAre(1));
}

TEST(MicroBatchTest, SizesSumToTheBatchAndDifferByAtMostOne) {
  for (int64_t batch = 1; batch <= 70; ++batch) {
    for (int64_t chunks = 1; chunks <= 40; ++chunks) {
      const std::vector<int64_t> sizes = MicroBatchSizes(batch, chunks);
      ASSERT_EQ(static_cast<int64_t>(sizes.size()), std::min(batch, chunks));
      ASSERT_EQ(std::accumulate(sizes.begin(), sizes.end(), int64_t{0}), batch);
      ASSERT_TRUE(std::is_sorted(sizes.rbegin(), sizes.rend())) << batch << "/" << chunks;
      ASSERT_LE(sizes.front() - sizes.back(), 1) << batch << "/" << chunks;
      ASSERT_GE(sizes.back(), 1);
    }
  }
}

}  // namespace
}  // namespace gpipe::pipeline
