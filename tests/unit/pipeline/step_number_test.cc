#include "pipeline/step_number.h"

#include "gtest/gtest.h"

namespace gpipe::pipeline {
namespace {

// With an evaluation and a checkpoint after each second step, from step 2 on.
TEST(StepNumberTest, AStepItsEvaluationAndItsCheckpointHaveOneNumber) {
  RoundCursor cursor({.samples = 4,
                      .batch_size = 4,
                      .steps = 4,
                      .evaluate_every = 2,
                      .evaluation_samples = 4,
                      .checkpoint_every = 2,
                      .first_step = 2});
  EXPECT_EQ(NameOf(*cursor.Next()), "step 3");
  EXPECT_EQ(NameOf(*cursor.Next()), "step 4");
  EXPECT_EQ(NameOf(*cursor.Next()), "the storing of the model after step 4");
  EXPECT_EQ(NameOf(*cursor.Next()), "the evaluation after step 4");
  EXPECT_EQ(NameOf(*cursor.Next()), "the checkpoint of step 4");
}

TEST(StepNumberTest, TheFirstStepIsOneAndSoIsTheFirstBatch) {
  RoundCursor training({.samples = 8, .batch_size = 4, .steps = 1, .check_loss_samples = 2});
  EXPECT_EQ(NameOf(*training.Next()), "the look at the loss");
  for (int i = 1; i < kLossCheckRounds; ++i) EXPECT_EQ(StepNumber(*training.Next()), 0);
  EXPECT_EQ(StepNumber(*training.Next()), 1);
  RoundCursor inference({.samples = 8, .batch_size = 4});
  EXPECT_EQ(NameOf(*inference.Next()), "batch 1");
  EXPECT_EQ(NameOf(*inference.Next()), "batch 2");
}

}  // namespace
}  // namespace gpipe::pipeline
