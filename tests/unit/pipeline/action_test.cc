#include "pipeline/action.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

namespace gpipe::pipeline {
namespace {

using ::testing::HasSubstr;

TEST(ActionTest, ReadsAsStageKindMicroBatch) {
  EXPECT_EQ(ToString({.stage = 0, .kind = ActionKind::kForward, .micro_batch = 1}), "0F1");
  EXPECT_EQ(ToString({.stage = 12, .kind = ActionKind::kRecompute, .micro_batch = 34}), "12R34");
  EXPECT_EQ(ToString({.stage = 1, .kind = ActionKind::kOptimizer}), "1OPT");
  EXPECT_EQ(ToString({.stage = 1, .kind = ActionKind::kReduceGrad}), "1REDUCE_GRAD");
}

TEST(ActionTest, ATransferNamesItsEdge) {
  EXPECT_EQ(ToString({.stage = 2, .kind = ActionKind::kRecvForward, .micro_batch = 1, .edge = 3}), "2RECV_F1@3");
}

TEST(ActionTest, EveryKindSurvivesTheRoundTrip) {
  for (const char* token : {"0F0", "3B7", "3R7", "2SEND_F1@0", "2RECV_F1@10", "2SEND_B2", "0RECV_B15@3", "1REDUCE_GRAD",
                            "63OPT", "100F1000"}) {
    const absl::StatusOr<Action> action = ParseAction(token);
    ASSERT_TRUE(action.ok()) << action.status();
    EXPECT_EQ(ToString(*action), token);
  }
}

TEST(ActionTest, CycleAndCheckpointAreNotInTheText) {
  const Action action{.stage = 1, .kind = ActionKind::kForward, .micro_batch = 2, .cycle = 3, .checkpointed = true};
  EXPECT_EQ(ParseAction(ToString(action)).value(),
            (Action{.stage = 1, .kind = ActionKind::kForward, .micro_batch = 2}));
}

TEST(ActionTest, ABadTokenIsNamed) {
  for (const char* token :
       {"", "F1", "0", "0X1", "0F", "0F1x", "-1F0", "0F-1", "0f1", "0 F1", "0OPT1", "0F1@2", "0SEND_F1@", "0SEND_F@1",
        "0RECV1", "0SEND_F1@1@2", "99999999999F0", "0F99999999999", "0SEND_F0@99999999999"}) {
    const absl::StatusOr<Action> action = ParseAction(token);
    ASSERT_EQ(action.status().code(), absl::StatusCode::kInvalidArgument) << token;
    EXPECT_THAT(std::string(action.status().message()), HasSubstr("'" + std::string(token) + "'"));
  }
}

TEST(ActionTest, KindsFallIntoComputeSendAndReceive) {
  EXPECT_TRUE(IsCompute(ActionKind::kForward) && IsCompute(ActionKind::kBackward) &&
              IsCompute(ActionKind::kRecompute) && IsCompute(ActionKind::kOptimizer));
  EXPECT_TRUE(IsSend(ActionKind::kSendForward) && IsSend(ActionKind::kSendBackward));
  EXPECT_TRUE(IsReceive(ActionKind::kRecvForward) && IsReceive(ActionKind::kRecvBackward));
  for (const KindTraits& traits : kKindTraits) {
    const bool meets = traits.kind == ActionKind::kReduceGrad;
    EXPECT_EQ(IsCompute(traits.kind) + IsSend(traits.kind) + IsReceive(traits.kind), meets ? 0 : 1) << traits.name;
    EXPECT_EQ(IsTransfer(traits.kind), IsSend(traits.kind) || IsReceive(traits.kind)) << traits.name;
  }
}

TEST(ActionTest, ValuesGoForwardAndGradientsBack) {
  for (const ActionKind kind : {ActionKind::kForward, ActionKind::kSendForward, ActionKind::kRecvForward}) {
    EXPECT_EQ(DirectionOf(kind), Direction::kForward) << KindName(kind);
  }
  for (const ActionKind kind : {ActionKind::kBackward, ActionKind::kSendBackward, ActionKind::kRecvBackward}) {
    EXPECT_EQ(DirectionOf(kind), Direction::kBackward) << KindName(kind);
  }
}

}  // namespace
}  // namespace gpipe::pipeline
