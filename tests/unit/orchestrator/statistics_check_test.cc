#include "orchestrator/planning/statistics_check.h"

#include "common/field_error.h"
#include "tests/unit/orchestrator/plan_testing.h"

namespace gpipe::orchestrator {
namespace {

using testing::HasSubstr;

// Of two layers; the batch normalisation of the second one has so many values per channel and sample.
LayerInfos Layers(int64_t per_sample) {
  LayerInfos layers(2);
  layers[1].set_kind("norm");
  layers[1].add_values_per_channel()->set_per_sample(per_sample);
  return layers;
}

v1::JobSpec Spec(int64_t batch_size, int64_t chunks, int64_t steps = 100) {
  v1::JobSpec spec = ParseSpec(kTrainYaml);
  spec.mutable_train()->set_batch_size(batch_size);
  spec.mutable_train()->set_steps(steps);
  spec.mutable_pipeline()->set_chunks(chunks);
  return spec;
}

FieldViolation Refused(const v1::JobSpec& spec, int64_t samples, const LayerInfos& layers) {
  const absl::Status status = CheckStatistics(spec, Facts(samples, {4}), layers);
  const std::vector<FieldViolation> violations = FieldViolations(status);
  EXPECT_EQ(violations.size(), 1u) << status;
  return violations.empty() ? FieldViolation() : violations.front();
}

TEST(StatisticsCheckTest, OneValuePerChannelIsRefusedByTheFieldThatMakesIt) {
  const FieldViolation chunks = Refused(Spec(8, 8), 16, Layers(1));
  EXPECT_EQ(chunks.field, "pipeline.chunks");
  EXPECT_THAT(chunks.description, HasSubstr("layer 1 (norm)"));
  EXPECT_THAT(chunks.description, HasSubstr("chunks of at most 4"));
  EXPECT_EQ(Refused(Spec(3, 2), 6, Layers(1)).field, "pipeline.chunks") << "two samples and one";
  EXPECT_EQ(Refused(Spec(1, 1), 6, Layers(1)).field, "train.batch_size");

  const FieldViolation rest = Refused(Spec(5, 2), 23, Layers(1));
  EXPECT_EQ(rest.field, "train.batch_size");
  EXPECT_THAT(rest.description, HasSubstr("a last mini-batch of 3 samples"));
  EXPECT_THAT(rest.description, HasSubstr("drop_last"));
}

TEST(StatisticsCheckTest, WhatIsNeverMetIsNotRefused) {
  const auto fits = [](const v1::JobSpec& spec, int64_t samples, const LayerInfos& layers) {
    return CheckStatistics(spec, Facts(samples, {4}), layers).ok();
  };
  EXPECT_TRUE(fits(Spec(8, 4), 16, Layers(1)));
  EXPECT_TRUE(fits(Spec(8, 8), 16, Layers(36))) << "a map has more than one value";
  EXPECT_TRUE(fits(Spec(8, 8), 16, LayerInfos(2)));
  EXPECT_TRUE(fits(Spec(4, 2, 5), 21, Layers(1))) << "the job ends before the rest of the data set";
  v1::JobSpec drops = Spec(4, 2);
  drops.mutable_train()->set_drop_last(true);
  EXPECT_TRUE(fits(drops, 21, Layers(1)));
}

TEST(StatisticsCheckTest, AFixedNumberOfValuesCountsToo) {
  LayerInfos layers = Layers(2);
  layers[1].mutable_values_per_channel(0)->set_fixed(-4);
  EXPECT_THAT(Refused(Spec(8, 4), 16, layers).description, HasSubstr("at least 3 samples"));
  EXPECT_TRUE(CheckStatistics(Spec(8, 2), Facts(16, {4}), layers).ok());
}

}  // namespace
}  // namespace gpipe::orchestrator
