#include "orchestrator/scheduling/loss_judgement.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>
#include <limits>

namespace gpipe::orchestrator {
namespace {

using ::testing::HasSubstr;
using ::testing::IsEmpty;

v1::LossChecked Losses(double first, double second, double both) {
  v1::LossChecked losses;
  losses.set_first(first);
  losses.set_second(second);
  losses.set_both(both);
  return losses;
}

TEST(LossJudgementTest, AMeanOfTwoHalvesIsFine) {
  EXPECT_THAT(JudgeLoss(Losses(2.1, 2.3, 2.2)), IsEmpty());
  EXPECT_THAT(JudgeLoss(Losses(2.1, 2.3, 2.2001)), IsEmpty());
  EXPECT_THAT(JudgeLoss(Losses(0, 0, 0)), IsEmpty());
}

TEST(LossJudgementTest, BfloatsMayBeOffByTheirRounding) {
  EXPECT_THAT(JudgeLoss(Losses(2.09375, 2.3125, 2.21875)), IsEmpty());  // 2.203125 is not one.
  EXPECT_THAT(JudgeLoss(Losses(2.09375, 2.3125, 2.25)), HasSubstr("no mean over samples"));
}

TEST(LossJudgementTest, AnotherMeanAndASumAreSaidWithTheirNumbers) {
  EXPECT_THAT(JudgeLoss(Losses(2.1, 2.3, 2.15)), HasSubstr("is 2.15, but their two halves have 2.1 and 2.3"));
  EXPECT_THAT(JudgeLoss(Losses(6, 6.5, 12.5)), HasSubstr("mean_of"));
}

TEST(LossJudgementTest, AHalfWithoutALossIsSaid) {
  EXPECT_THAT(JudgeLoss(Losses(2.1, std::nan(""), 2.1)), HasSubstr("not a number"));
}

TEST(LossJudgementTest, AModelWhoseWholeLossIsNoNumberFailsByItself) {
  EXPECT_THAT(JudgeLoss(Losses(2.1, std::nan(""), std::nan(""))), IsEmpty());
  EXPECT_THAT(JudgeLoss(Losses(2.1, 2.1, std::numeric_limits<double>::infinity())), IsEmpty());
}

}  // namespace
}  // namespace gpipe::orchestrator
