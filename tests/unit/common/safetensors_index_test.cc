#include "common/file.h"
#include "common/safetensors/index.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"

namespace gpipe::safetensors {
namespace {

using testing::ElementsAre;
using testing::HasSubstr;
using testing::Pair;

constexpr char kIndex[] = R"({"metadata": {"total_size": 12, "more": {"a": [1]}},
  "weight_map": {"b": "model-2.safetensors", "a": "model-1.safetensors", "c": "sub/./model-3.safetensors",
                 "d": "model-1.safetensors"}})";

TEST(SafetensorsIndexTest, NamesShardsAsTheSpecWould) {
  const auto index = ParseIndex(kIndex, "hf/model.safetensors.index.json");
  ASSERT_TRUE(index.ok()) << index.status();
  EXPECT_THAT(*index, ElementsAre(Pair("a", "hf/model-1.safetensors"), Pair("b", "hf/model-2.safetensors"),
                                  Pair("c", "hf/sub/model-3.safetensors"), Pair("d", "hf/model-1.safetensors")));
  EXPECT_THAT(ShardsOf(*index),
              ElementsAre("hf/model-1.safetensors", "hf/model-2.safetensors", "hf/sub/model-3.safetensors"));
  EXPECT_EQ(ParseIndex(kIndex, "index.json")->at("a"), "model-1.safetensors");
  EXPECT_EQ(ParseIndex(kIndex, "/models/index.json")->at("a"), "/models/model-1.safetensors");
}

TEST(SafetensorsIndexTest, IsKnownByItsName) {
  EXPECT_TRUE(IsIndex("hf/model.safetensors.index.json"));
  EXPECT_FALSE(IsIndex("model.safetensors"));
  EXPECT_FALSE(IsIndex(""));
}

struct Row {
  const char* text;
  const char* what;
};

TEST(SafetensorsIndexTest, RefusesWhatIsNoIndex) {
  const Row rows[] = {
      {"", "JSON object"},
      {"[]", "JSON object"},
      {"{\"weight_map\": {", "JSON object"},
      {"{}", "weight_map"},
      {R"({"weight_map": []})", "weight_map"},
      {R"({"weight_map": {"a": 3}})", "'a' is not a text"},
      {R"({"weight_map": {"a": "x"}, "weight_map": {}})", "twice"},
      {R"({"weight_map": {"a": "x", "a": "y"}})", "has 'a' twice"},
      {R"({"weight_map": {"a": ""}})", "'' of 'a' is no file beside the index"},
      {R"({"weight_map": {"a": "/etc/passwd"}})", "'/etc/passwd' of 'a' is no file beside the index"},
      {R"({"weight_map": {"a": "../x"}})", "'../x' of 'a' is no file beside the index"},
      {R"({"weight_map": {"a": "x/../../y"}})", "no file beside the index"},
      {R"({"weight_map": {"a": "sub/"}})", "no file beside the index"},
      {R"({"metadata": [[[[[[[[[[]]]]]]]]]], "weight_map": {}})", "nested"},
  };
  for (const Row& row : rows) {
    const absl::Status status = ParseIndex(row.text, "index.json").status();
    EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument) << row.text;
    EXPECT_THAT(std::string(status.message()), HasSubstr(row.what));
  }
}

TEST(SafetensorsIndexTest, ReadsFiles) {
  const auto folder = TemporaryFolder::Create("index_test");
  const auto path = folder->path() / "index.json";
  EXPECT_EQ(ReadIndex(path, "index.json").status().code(), absl::StatusCode::kNotFound);
  ASSERT_TRUE(WriteFileAtomically(path, kIndex).ok());
  EXPECT_EQ(ReadIndex(path, "index.json")->size(), 4u);
}

}  // namespace
}  // namespace gpipe::safetensors
