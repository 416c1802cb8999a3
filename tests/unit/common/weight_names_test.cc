#include "common/safetensors/weight_names.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

namespace gpipe::safetensors {
namespace {

using ::testing::ElementsAre;

TEST(WeightNamesTest, WhatWrappersAddDoesNotMatter) {
  const WeightNames names({"module._orig_mod.a.weight", "b._orig_mod.0.weight", "c.module.weight"});
  EXPECT_EQ(*names.Find({"a.weight"}), "module._orig_mod.a.weight");
  EXPECT_EQ(*names.Find({"_orig_mod.a.weight"}), "module._orig_mod.a.weight");
  EXPECT_EQ(*names.Find({"b.0.weight"}), "b._orig_mod.0.weight");
  EXPECT_EQ(*names.Find({"c.module.weight"}), "c.module.weight") << "a module of that name, and no wrapper";
  EXPECT_FALSE(names.Find({"c.weight"}).ok());
}

TEST(WeightNamesTest, TheFirstNameThatIsThereIsTaken) {
  const WeightNames names({"embed.weight", "head.weight"});
  EXPECT_EQ(*names.Find({"tied.weight", "head.weight", "embed.weight"}), "head.weight");
  EXPECT_EQ(names.Find({"x", "y"}).status(), absl::NotFoundError("there is no tensor 'x' or 'y' in it"));
}

TEST(WeightNamesTest, ItsVeryNameComesBeforeThoseOfWrappers) {
  const WeightNames names({"module.a", "a", "module.b", "_orig_mod.b"});
  EXPECT_EQ(*names.Find({"a"}), "a");
  EXPECT_EQ(names.Find({"b"}).status().code(), absl::StatusCode::kInvalidArgument);
  EXPECT_THAT(names.Meaning("a"), ElementsAre("module.a", "a"));
}

TEST(WeightNamesTest, APrefixIsTakenOffWhereItIs) {
  EXPECT_THAT(WithoutPrefix("encoder.", {"encoder.a", "b", "encoder.encoder.c"}), ElementsAre("a", "b", "encoder.c"));
  EXPECT_THAT(WithoutPrefix("", {"a"}), ElementsAre("a"));
}

}  // namespace
}  // namespace gpipe::safetensors
