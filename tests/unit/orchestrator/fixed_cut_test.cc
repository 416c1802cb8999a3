#include "orchestrator/planning/fixed_cut.h"

#include "common/field_error.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"

namespace gpipe::orchestrator {
namespace {

using testing::ElementsAre;
using testing::HasSubstr;
using testing::IsEmpty;

v1::LayerInfo Layer(const std::vector<std::string>& begins, const std::vector<std::string>& contains = {}) {
  v1::LayerInfo layer;
  layer.mutable_begins()->Assign(begins.begin(), begins.end());
  layer.mutable_contains()->Assign(contains.begin(), contains.end());
  return layer;
}

// The last layer of h.0 begins in the middle of a module.
const std::vector<v1::LayerInfo> kLayers = {Layer({"wte"}, {"drop"}), Layer({"h", "h.0", "h.0.attn"}),
                                            Layer({"h.0.mlp"}),       Layer({}, {"h.0.norm"}),
                                            Layer({"h.1"}),           Layer({"head"})};

v1::JobSpec Split(const std::vector<std::string>& modules) {
  v1::JobSpec spec;
  spec.mutable_pipeline()->mutable_split()->Assign(modules.begin(), modules.end());
  return spec;
}

void ExpectRefused(const std::vector<std::string>& modules, const std::string& field, const std::string& words) {
  const absl::Status status = FixedCut(Split(modules), kLayers).status();
  const std::vector<FieldViolation> violations = FieldViolations(status);
  ASSERT_EQ(violations.size(), 1u) << status;
  EXPECT_EQ(violations[0].field, field);
  EXPECT_THAT(violations[0].description, HasSubstr(words));
}

TEST(FixedCutTest, ASplitBeginsStagesAtModules) {
  EXPECT_THAT(*FixedCut(Split({"h.1"}), kLayers), ElementsAre(4, 2));
  EXPECT_THAT(*FixedCut(Split({"h", "h.0.mlp", "head"}), kLayers), ElementsAre(1, 1, 3, 1));
  EXPECT_EQ(FixedStages(Split({"h", "h.0.mlp", "head"})), 4);
}

TEST(FixedCutTest, ABalanceAddsUpToTheLayers) {
  v1::JobSpec spec;
  spec.mutable_pipeline()->add_balance(2);
  spec.mutable_pipeline()->add_balance(4);
  EXPECT_EQ(FixedStages(spec), 2);
  EXPECT_THAT(*FixedCut(spec, kLayers), ElementsAre(2, 4));
  spec.mutable_pipeline()->add_balance(1);
  EXPECT_THAT(std::string(FixedCut(spec, kLayers).status().message()), HasSubstr("sum of balance: 7, parts: 6"));
}

TEST(FixedCutTest, WithoutEitherTheCutIsOpen) {
  EXPECT_EQ(FixedStages({}), 0);
  EXPECT_THAT(*FixedCut({}, kLayers), IsEmpty());
}

TEST(FixedCutTest, UnknownModulesAreToldWithTheNearest) {
  ExpectRefused({"h.0.mpl"}, "pipeline.split[0]",
                "no module 'h.0.mpl' that computes anything; did you mean 'h.0.mlp'?");
  ExpectRefused({"h.1", "transformer"}, "pipeline.split[1]", "no module 'transformer'");
}

TEST(FixedCutTest, WhereNoStageCanBeginTheNeighboursAreTold) {
  ExpectRefused(
      {"h.0.norm"}, "pipeline.split[0]",
      "no stage can begin at 'h.0.norm', inseparable from what is before it (what would cross is still written "
      "to, is a number, or has a size that does not follow from the number of samples, but depends on what the "
      "data is); one can at 'h.0.mlp' before it and at 'h.1' behind it");
  ExpectRefused({"drop"}, "pipeline.split[0]", "one can at 'h' behind it");
}

TEST(FixedCutTest, ModulesAreInTheOrderOfTheProgram) {
  ExpectRefused({"h.1", "h.0"}, "pipeline.split[1]", "'h.0' comes before 'h.1' in the program");
  ExpectRefused({"h.1", "h.1"}, "pipeline.split[1]", "'h.1' is given twice");
  ExpectRefused({"h.0", "h.0.attn"}, "pipeline.split[1]", "'h.0.attn' begins where 'h.0' does");
  ExpectRefused({"wte", "h.1"}, "pipeline.split[0]", "the model begins with 'wte'");
}

TEST(FixedCutTest, AllThatIsWrongIsListed) {
  const absl::Status status = FixedCut(Split({"wte", "nothing", "h.1", "h.0"}), kLayers).status();
  EXPECT_EQ(FieldViolations(status).size(), 3u) << status;
}

}  // namespace
}  // namespace gpipe::orchestrator
