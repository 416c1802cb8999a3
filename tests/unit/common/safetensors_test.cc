#include <malloc.h>

#include <algorithm>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "common/file.h"
#include "common/safetensors/header.h"
#include "common/safetensors/merge.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"

namespace gpipe::safetensors {
namespace {

using testing::ElementsAre;
using testing::HasSubstr;

std::string Length(uint64_t length) {
  std::string bytes;
  for (int i = 0; i < 8; ++i) bytes.push_back(static_cast<char>(length >> (8 * i) & 0xff));
  return bytes;
}

std::string File(const std::string& json, size_t data_bytes) {
  return Length(json.size()) + json + std::string(data_bytes, '\0');
}

absl::StatusOr<Header> Parse(const std::string& bytes) { return ParseHeader(bytes, bytes.size()); }

// `{"w": {...}}` with these values.
std::string One(const std::string& dtype, const std::string& shape, const std::string& offsets) {
  return absl::StrCat(R"({"w":{"dtype":)", dtype, R"(,"shape":)", shape, R"(,"data_offsets":)", offsets, "}}");
}

constexpr char kGood[] = R"({"__metadata__":{"format":"pt"},
  "b":{"dtype":"I64","shape":[2],"data_offsets":[24,40]},
  "a":{"dtype":"F32","shape":[2,3],"data_offsets":[0,24]}})";

TEST(SafetensorsTest, ReadsWhereTensorsLie) {
  const auto header = Parse(File(kGood, 40));
  ASSERT_TRUE(header.ok()) << header.status();
  ASSERT_EQ(header->tensors.size(), 2u);
  const uint64_t data = 8 + sizeof kGood - 1;
  const TensorInfo& a = header->tensors.at("a");
  EXPECT_EQ(a.dtype, v1::DATA_TYPE_FLOAT32);
  EXPECT_THAT(a.shape, ElementsAre(2, 3));
  EXPECT_EQ(a.begin, data);
  EXPECT_EQ(a.end, data + 24);
  EXPECT_EQ(header->tensors.at("b").begin, data + 24);
  EXPECT_EQ(header->metadata.at("format"), "pt");
}

TEST(SafetensorsTest, TakesScalarsEmptyTensorsAndNoTensors) {
  EXPECT_TRUE(Parse(File(One("\"F64\"", "[]", "[0,8]"), 8)).ok());
  EXPECT_TRUE(Parse(File(One("\"F64\"", "[0,5]", "[0,0]"), 0)).ok());
  EXPECT_TRUE(Parse(File("{}", 0)).ok());
  EXPECT_TRUE(Parse(File("{}   ", 0)).ok());
}

TEST(SafetensorsTest, DtypesThereAndBack) {
  for (int value = 1; v1::DataType_IsValid(value); ++value) {
    const auto dtype = static_cast<v1::DataType>(value);
    EXPECT_GT(ElementSize(dtype), 0) << v1::DataType_Name(dtype);
    EXPECT_EQ(DtypeFromName(DtypeName(dtype)), IsInFiles(dtype) ? dtype : v1::DATA_TYPE_UNSPECIFIED);
  }
  EXPECT_FALSE(IsInFiles(v1::DATA_TYPE_COMPLEX128)) << "the format has no name for it";
  EXPECT_EQ(DtypeName(v1::DATA_TYPE_COMPLEX64), "C64");
  EXPECT_TRUE(IsConvertible(v1::DATA_TYPE_FLOAT8_E4M3, v1::DATA_TYPE_FLOAT32));
  EXPECT_FALSE(IsConvertible(v1::DATA_TYPE_COMPLEX64, v1::DATA_TYPE_FLOAT32));
  EXPECT_EQ(ElementSize(v1::DATA_TYPE_UNSPECIFIED), 0);
  EXPECT_EQ(DtypeFromName("F8_E8M0"), v1::DATA_TYPE_UNSPECIFIED);
}

struct Corruption {
  std::string bytes;
  const char* what;
};

TEST(SafetensorsTest, AnUnknownTypeDoesNotMakeTheFileBad) {
  const std::string file = File(R"({"w":{"dtype":"F8_E8M0","shape":[3],"data_offsets":[0,3]},
                                    "x":{"dtype":"F32","shape":[1],"data_offsets":[3,7]}})",
                                7);
  const auto header = Parse(file);
  ASSERT_TRUE(header.ok()) << header.status();
  EXPECT_EQ(header->tensors.at("w").dtype, v1::DATA_TYPE_UNSPECIFIED);
  EXPECT_EQ(header->tensors.at("w").dtype_name, "F8_E8M0");
  EXPECT_EQ(header->tensors.at("x").dtype, v1::DATA_TYPE_FLOAT32);
  EXPECT_FALSE(IsConvertible(header->tensors.at("w").dtype, v1::DATA_TYPE_FLOAT32));
  EXPECT_FALSE(IsConvertible(v1::DATA_TYPE_UNSPECIFIED, v1::DATA_TYPE_UNSPECIFIED));
}

TEST(SafetensorsTest, RefusesEveryCorruption) {
  const std::string f32 = "\"F32\"";
  const std::string good = File(kGood, 40);
  const auto two = [](const char* first, const char* second) {
    return absl::StrCat(R"({"a":{"dtype":"U8","shape":[4],"data_offsets":)", first,
                        R"(},"b":{"dtype":"U8","shape":[4],"data_offsets":)", second, "}}");
  };
  const std::vector<Corruption> rows = {
      {"", "8 bytes"},
      {good.substr(0, 7), "8 bytes"},
      {good.substr(0, 8), "cut off"},
      {good.substr(0, 50), "cut off"},
      {good.substr(0, good.size() - 1), "beyond the end"},
      {good + "x", "no tensor"},
      {Length(0), "JSON object"},
      {Length(200'000'000) + "{}", "limit"},
      {Length(~uint64_t{0}) + "{}", "limit"},
      {File("[]", 0), "JSON object"},
      {File("3", 0), "JSON object"},
      {File("null", 0), "JSON object"},
      {File("{\"a\":", 0), "JSON object"},
      {File("{} {}", 0), "JSON object"},
      {File("{\"a\xff\":{}}", 0), "JSON object"},
      {File(std::string(100'000, '['), 0), "nested"},
      {File("{\"a\":" + std::string(50, '[') + std::string(50, ']') + "}", 0), "nested"},
      {File("{\"w\":3}", 0), "object"},
      {File("{\"w\":{}}", 0), "dtype"},
      {File(One("3", "[1]", "[0,4]"), 4), "dtype"},
      {File(R"({"w":{"dtype":"F32","data_offsets":[0,4]}})", 4), "no shape"},
      {File(One(f32, "1", "[0,4]"), 4), "no shape"},
      {File(One(f32, "[1.0]", "[0,4]"), 4), "whole number"},
      {File(One(f32, "[-1]", "[0,4]"), 4), "whole number"},
      {File(One(f32, "[\"1\"]", "[0,4]"), 4), "whole number"},
      {File(One(f32, "[9223372036854775808]", "[0,4]"), 4), "out of range"},
      {File(One(f32, "[4611686018427387904,4]", "[0,0]"), 0), "too large"},
      {File(One(f32, "[9223372036854775807,9223372036854775807,0]", "[0,0]"), 0), "too large"},
      {File(R"({"w":{"dtype":"F32","shape":[1]}})", 4), "data_offsets"},
      {File(One(f32, "[1]", "[0]"), 4), "data_offsets"},
      {File(One(f32, "[1]", "[0,4,8]"), 8), "data_offsets"},
      {File(One(f32, "[1]", "[-4,0]"), 4), "data_offsets"},
      {File(One(f32, "[1]", "[0.0,4.0]"), 4), "data_offsets"},
      {File(One(f32, "[1]", "[4,0]"), 4), "beyond"},
      {File(One(f32, "[1]", "[0,18446744073709551615]"), 4), "beyond"},
      {File(One(f32, "[2]", "[0,4]"), 4), "needs 8"},
      {File(One(f32, "[1]", "[4,8]"), 8), "gap"},
      {File(two("[0,4]", "[2,6]"), 6), "overlaps"},
      {File(two("[0,4]", "[0,4]"), 4), "overlaps"},
      {File(two("[0,4]", "[5,9]"), 9), "gap"},
      {File(two("[0,4]", "[4,8]"), 9), "1 bytes at the end"},
      {File(
           R"({"w":{"dtype":"U8","shape":[0],"data_offsets":[0,0]},"w":{"dtype":"U8","shape":[0],"data_offsets":[0,0]}})",
           0),
       "twice"},
      {File(R"({"w":{"dtype":"U8","dtype":"I8","shape":[0],"data_offsets":[0,0]}})", 0), "twice"},
      {File(R"({"__metadata__":3})", 0), "__metadata__"},
      {File(R"({"__metadata__":{"a":3}})", 0), "__metadata__"},
  };
  for (const Corruption& row : rows) {
    const auto header = Parse(row.bytes);
    EXPECT_EQ(header.status().code(), absl::StatusCode::kInvalidArgument) << row.bytes.substr(0, 200);
    EXPECT_THAT(std::string(header.status().message()), HasSubstr(row.what)) << row.bytes.substr(0, 200);
  }
}

class SafetensorsFileTest : public testing::Test {
 protected:
  void SetUp() override {
    auto folder = TemporaryFolder::Create("safetensors_test");
    ASSERT_TRUE(folder.ok()) << folder.status();
    folder_.emplace(*std::move(folder));
  }
  std::filesystem::path At(const std::string& name) const { return folder_->path() / name; }

  // A file of U8 vectors, each filled with one letter.
  std::filesystem::path Write(const std::string& file, const std::vector<std::pair<std::string, size_t>>& sizes) {
    std::vector<std::pair<std::string, TensorInfo>> tensors;
    std::string data;
    for (const auto& [name, size] : sizes) {
      tensors.emplace_back(name, TensorInfo{.dtype = v1::DATA_TYPE_UINT8, .shape = {static_cast<int64_t>(size)}});
      data += std::string(size, name.back());
    }
    EXPECT_TRUE(WriteFileAtomically(At(file), BuildHeader(tensors) + data).ok());
    return At(file);
  }
  // Copies bytes as late as it may.
  static absl::Status MergeInto(const std::filesystem::path& output, const std::vector<std::filesystem::path>& parts) {
    std::string content;
    std::string_view last;
    const absl::Status merged = Merge(parts, [&](std::string_view bytes) {
      content += std::exchange(last, bytes);
      return absl::OkStatus();
    });
    EXPECT_TRUE(last.empty());
    return merged.ok() ? WriteFileAtomically(output, content) : merged;
  }
  std::optional<TemporaryFolder> folder_;
};

TEST_F(SafetensorsFileTest, WhatIsBuiltIsRead) {
  std::vector<std::pair<std::string, TensorInfo>> tensors = {
      {"z \"quoted\"", {.dtype = v1::DATA_TYPE_BFLOAT16, .shape = {3, 5}}},
      {"a", {.dtype = v1::DATA_TYPE_FLOAT64, .shape = {}}},
      {"none", {.dtype = v1::DATA_TYPE_INT32, .shape = {4, 0}}}};
  const std::string built = BuildHeader(tensors, {{"step", "12"}});
  EXPECT_EQ(built.size() % 8, 0u);
  EXPECT_EQ(tensors[0].second.begin, built.size());
  ASSERT_TRUE(WriteFileAtomically(At("x"), built + std::string(38, '\1')).ok());
  const auto header = ReadHeader(At("x"));
  ASSERT_TRUE(header.ok()) << header.status();
  EXPECT_EQ(header->metadata.at("step"), "12");
  for (const auto& [name, info] : tensors) {
    EXPECT_EQ(header->tensors.at(name).shape, info.shape);
    EXPECT_EQ(header->tensors.at(name).begin, info.begin);
    EXPECT_EQ(header->tensors.at(name).end, info.end);
  }
}

TEST_F(SafetensorsFileTest, FilesThatAreNone) {
  EXPECT_EQ(ReadHeader(At("none")).status().code(), absl::StatusCode::kNotFound);
  EXPECT_FALSE(ReadHeader(folder_->path()).ok());
  ASSERT_TRUE(WriteFileAtomically(At("short"), "1234").ok());
  EXPECT_EQ(ReadHeader(At("short")).status().code(), absl::StatusCode::kInvalidArgument);
  ASSERT_TRUE(WriteFileAtomically(At("huge"), Length(uint64_t{1} << 60) + "{}").ok());
  EXPECT_EQ(ReadHeader(At("huge")).status().code(), absl::StatusCode::kInvalidArgument);
}

TEST_F(SafetensorsFileTest, MergesPartsByName) {
  // More than two pieces of the copy.
  const auto first = Write("first", {{"2.b", 20'000'001}, {"0.a", 5}});
  const auto second = Write("second", {{"1.c", 7}, {"3.none", 0}});
  ASSERT_TRUE(MergeInto(At("all"), {first, second}).ok());
  const auto header = ReadHeader(At("all"));
  ASSERT_TRUE(header.ok()) << header.status();
  ASSERT_EQ(header->tensors.size(), 4u);
  const std::string bytes = *ReadFile(At("all"));
  for (const auto& [name, info] : header->tensors) {
    EXPECT_EQ(bytes.substr(info.begin, info.end - info.begin), std::string(info.end - info.begin, name.back()));
  }
}

TEST_F(SafetensorsFileTest, MergeRefusesAndLeavesNothing) {
  const auto first = Write("first", {{"a", 5}}), second = Write("second", {{"a", 5}});
  const absl::Status twice = MergeInto(At("all"), {first, second});
  EXPECT_EQ(twice.code(), absl::StatusCode::kInvalidArgument);
  EXPECT_THAT(std::string(twice.message()), HasSubstr("'a'"));
  EXPECT_EQ(MergeInto(At("all"), {first, At("none")}).code(), absl::StatusCode::kNotFound);
  EXPECT_FALSE(std::filesystem::exists(At("all")));
  EXPECT_EQ(std::distance(std::filesystem::directory_iterator(folder_->path()), {}), 2);
}

// Of many merges each has a thread of its own, and thus an arena of the heap, which keeps what was once used.
TEST_F(SafetensorsFileTest, SmallFilesAreMergedInLittleMemory) {
  const auto first = Write("first", {{"a", 5}}), second = Write("second", {{"b", 7}});
  const auto in_use = [] {
    const struct mallinfo2 info = mallinfo2();
    return info.uordblks + info.hblkhd;
  };
  const size_t before = in_use();
  size_t most = 0;
  ASSERT_TRUE(Merge({first, second}, [&](std::string_view) {
                most = std::max(most, in_use());
                return absl::OkStatus();
              }).ok());
  EXPECT_LT(most, before + (size_t{1} << 20));
}

TEST_F(SafetensorsFileTest, MergesNothing) {
  ASSERT_TRUE(MergeInto(At("all"), {}).ok());
  EXPECT_TRUE(ReadHeader(At("all"))->tensors.empty());
}

}  // namespace
}  // namespace gpipe::safetensors
