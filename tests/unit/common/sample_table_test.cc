// Data sets of several files, NumPy's files, and files of tokens as others write them.

#include "common/data/sample_table.h"

#include <cstring>
#include <fstream>

#include "absl/strings/str_cat.h"
#include "common/data/npy.h"
#include "common/data/pattern.h"
#include "common/file.h"
#include "common/safetensors/header.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"

namespace gpipe::data {
namespace {

using testing::ElementsAre;
using testing::HasSubstr;

class SampleTableTest : public testing::Test {
 protected:
  SampleTableTest() : folder_(*TemporaryFolder::Create("sample-table-test")) {}

  DataPath Write(const std::string& name, const std::string& content) {
    const std::filesystem::path path = folder_.path() / name;
    std::filesystem::create_directories(path.parent_path());
    std::ofstream(path, std::ios::binary) << content;
    return {.name = name, .path = path};
  }

  DataPath WriteTensors(const std::string& name, std::vector<std::pair<std::string, safetensors::TensorInfo>> tensors) {
    std::string header = safetensors::BuildHeader(tensors);
    const uint64_t size = tensors.empty() ? header.size() : tensors.back().second.end;
    header.resize(size);
    return Write(name, header);
  }

  DataPath WritePart(const std::string& name, int64_t samples, int64_t width = 3,
                     v1::DataType dtype = v1::DATA_TYPE_FLOAT32) {
    return WriteTensors(name, {{"x", {.dtype = dtype, .shape = {samples, width}}},
                               {"y", {.dtype = v1::DATA_TYPE_INT64, .shape = {samples}}}});
  }

  template <typename T>
  static std::string Bytes(const std::vector<T>& values) {
    std::string bytes(values.size() * sizeof(T), '\0');
    if (!values.empty()) std::memcpy(bytes.data(), values.data(), bytes.size());
    return bytes;
  }

  static v1::Tokens Tokens(int64_t length, v1::TokenType dtype = v1::TOKEN_TYPE_UNSPECIFIED) {
    v1::Tokens tokens;
    tokens.set_sequence_length(length);
    tokens.set_dtype(dtype);
    return tokens;
  }

  TemporaryFolder folder_;
};

std::string Npy(const std::string& header, const std::string& data) {
  const std::string text = header + std::string((64 - (10 + header.size() + 1) % 64) % 64, ' ') + "\n";
  std::string bytes = std::string("\x93NUMPY\x01\x00", 8);
  bytes += static_cast<char>(text.size() & 0xff);
  bytes += static_cast<char>(text.size() >> 8);
  return bytes + text + data;
}

TEST_F(SampleTableTest, SamplesOfSeveralFilesAddUpInTheirOrder) {
  const auto table = OpenTensors({WritePart("b", 4), WritePart("a", 0), WritePart("c", 5)});
  ASSERT_TRUE(table.ok()) << table.status();
  const SampleTensor& x = table->tensors.at("x");
  EXPECT_EQ(x.samples, 9);
  EXPECT_THAT(x.shape, ElementsAre(3));
  EXPECT_EQ(x.stride, 12u);
  ASSERT_EQ(x.parts.size(), 3u);
  EXPECT_EQ(x.parts[2].file, 2);
  EXPECT_EQ(x.parts[2].samples, 5);
  EXPECT_EQ(table->tensors.at("y").samples, 9);
}

TEST_F(SampleTableTest, AFileThatIsNotLikeTheFirstIsNamed) {
  const auto message = [&](const DataPath& second) {
    const auto table = OpenTensors({WritePart("first", 4), second});
    EXPECT_EQ(table.status().code(), absl::StatusCode::kInvalidArgument);
    return std::string(table.status().message());
  };
  EXPECT_THAT(message(WritePart("wide", 4, 2)), HasSubstr("'wide' has other data than 'first': 'x' is F32 samples of "
                                                          "shape [2] here, F32 samples of shape [3] there"));
  EXPECT_THAT(message(WritePart("half", 4, 3, v1::DATA_TYPE_FLOAT16)), HasSubstr("F16 samples of shape [3] here"));
  EXPECT_THAT(message(WriteTensors("less", {{"x", {.dtype = v1::DATA_TYPE_FLOAT32, .shape = {4, 3}}}})),
              HasSubstr("'less' has other tensors than 'first': x here, x, y there"));
  EXPECT_THAT(message(Write("torn", "garbage")), HasSubstr("'torn' cannot be used"));
}

TEST_F(SampleTableTest, AMissingFileIsNotFound) {
  const auto table = OpenTensors({{.name = "gone", .path = folder_.path() / "gone"}});
  EXPECT_TRUE(absl::IsNotFound(table.status()));
  EXPECT_THAT(std::string(table.status().message()), HasSubstr("'gone'"));
}

TEST_F(SampleTableTest, NumpyFilesAreTensorsWithTheirNames) {
  const std::string x = Npy("{'descr': '<f4', 'fortran_order': False, 'shape': (2, 3), }", std::string(24, 'x'));
  const std::string y = Npy("{'descr': '<i8', 'fortran_order': False, 'shape': (2,), }", std::string(16, 'y'));
  const auto table = OpenTensors({Write("0/x.npy", x), Write("0/y.npy", y), Write("1/x.npy", x)});
  ASSERT_TRUE(table.ok()) << table.status();
  EXPECT_EQ(table->tensors.at("x").samples, 4);
  EXPECT_THAT(table->tensors.at("x").shape, ElementsAre(3));
  EXPECT_EQ(table->tensors.at("x").parts[0].begin, 128u);
  EXPECT_EQ(table->tensors.at("y").dtype, v1::DATA_TYPE_INT64);
  EXPECT_EQ(table->tensors.at("y").samples, 2);
}

TEST_F(SampleTableTest, ATensorIsWholeWhereOneFileHasAllOfIt) {
  const safetensors::TensorInfo number{.dtype = v1::DATA_TYPE_FLOAT32, .shape = {}};
  auto table = OpenTensors({WriteTensors("a", {{"t", number}, {"x", {.dtype = number.dtype, .shape = {4, 3}}}})});
  ASSERT_TRUE(table.ok()) << table.status();
  EXPECT_TRUE(IsInOneFile(*table, "x"));
  EXPECT_THAT(table->tensors.at("x").whole_shape(), ElementsAre(4, 3));
  EXPECT_TRUE(IsInOneFile(*table, "t"));
  EXPECT_THAT(table->tensors.at("t").whole_shape(), ElementsAre());
  EXPECT_EQ(table->tensors.at("t").EndOf(table->tensors.at("t").parts.at(0)),
            table->tensors.at("t").parts[0].begin + 4);
  EXPECT_FALSE(IsInOneFile(*OpenTensors({WritePart("b", 4), WritePart("c", 2)}), "x"));
}

TEST_F(SampleTableTest, OfFilesElsewhereTheirNamesSayWhetherATensorIsWhole) {
  SampleTable table;
  table.tensors["x"] = {};
  table.tensors["t"] = {};
  table.files = {{.name = "a.safetensors", .path = {}}, {.name = "t.npy", .path = {}}};
  EXPECT_TRUE(IsInOneFile(table, "x"));
  EXPECT_TRUE(IsInOneFile(table, "t"));
  table.files.push_back({.name = "b.safetensors", .path = {}});
  EXPECT_FALSE(IsInOneFile(table, "x"));
  EXPECT_TRUE(IsInOneFile(table, "t"));
  table.files.push_back({.name = "b/t.npy", .path = {}});
  EXPECT_FALSE(IsInOneFile(table, "t"));
}

TEST(Npy, RefusesWhatCannotBeUsed) {
  const auto message = [](const std::string& bytes) {
    const auto info = ParseNpyHeader(bytes, bytes.size());
    EXPECT_EQ(info.status().code(), absl::StatusCode::kInvalidArgument);
    return std::string(info.status().message());
  };
  EXPECT_THAT(message(""), HasSubstr("does not begin as one"));
  EXPECT_THAT(message("PK\x03\x04 a zip file"), HasSubstr("does not begin as one"));
  const std::string good = Npy("{'descr': '<f4', 'fortran_order': False, 'shape': (2,), }", std::string(8, 0));
  EXPECT_TRUE(ParseNpyHeader(good, good.size()).ok());
  EXPECT_THAT(message(good.substr(0, good.size() - 1)), HasSubstr("cut off"));
  EXPECT_THAT(message(good.substr(0, 20)), HasSubstr("cut off"));
  EXPECT_THAT(message(Npy("{'descr': '>f4', 'fortran_order': False, 'shape': (2,), }", std::string(8, 0))),
              HasSubstr("'>f4'"));
  EXPECT_THAT(message(Npy("{'descr': [('a', '<f4')], 'fortran_order': False, 'shape': (2,), }", "")),
              HasSubstr("no plain numbers"));
  EXPECT_THAT(message(Npy("{'descr': '<f4', 'fortran_order': True, 'shape': (2, 2), }", std::string(16, 0))),
              HasSubstr("columns first"));
  EXPECT_THAT(message(Npy("{'descr': '<f8', 'fortran_order': False, 'shape': (9223372036854775807, 3), }", "")),
              HasSubstr("too large"));
  EXPECT_THAT(message(Npy("{'descr': '<f4', 'fortran_order': False, 'shape': (x,), }", "")), HasSubstr("shape"));
}

TEST_F(SampleTableTest, TokensAreWindowsThatDoNotReachIntoTheNextFile) {
  std::vector<uint16_t> text(11);
  const auto table = OpenTokens({Write("a.bin", Bytes(text)), Write("b.bin", Bytes(std::vector<uint16_t>(12)))},
                                Tokens(5, v1::TOKEN_TYPE_UINT16));
  ASSERT_TRUE(table.ok()) << table.status();
  const SampleTensor &input = table->tensors.at("input"), &target = table->tensors.at("target");
  EXPECT_EQ(input.samples, 4) << "11 tokens are two windows and the last one's target, and so are 12";
  EXPECT_EQ(target.samples, 4);
  EXPECT_EQ(input.dtype, v1::DATA_TYPE_INT64);
  EXPECT_THAT(input.shape, ElementsAre(5));
  EXPECT_EQ(input.stride, 10u);
  EXPECT_EQ(target.parts[1].begin, 2u);
  EXPECT_EQ(target.EndOf(target.parts[0]), 22u);
}

TEST_F(SampleTableTest, TooFewTokensAreNoSamples) {
  EXPECT_EQ(OpenTokens({Write("a.bin", Bytes(std::vector<uint16_t>(5)))}, Tokens(5, v1::TOKEN_TYPE_UINT16))
                ->tensors.at("input")
                .samples,
            0);
  EXPECT_TRUE(OpenTokens({Write("a.bin", "")}, Tokens(5, v1::TOKEN_TYPE_UINT16)).ok());
}

TEST_F(SampleTableTest, LlmCsPreambleIsKnownAndSkipped) {
  std::vector<int32_t> preamble(256);
  preamble[0] = 20240520, preamble[1] = 1, preamble[2] = 11;
  const std::string good = Bytes(preamble) + Bytes(std::vector<uint16_t>(11, 7));
  const auto table = OpenTokens({Write("a.bin", good)}, Tokens(5));
  ASSERT_TRUE(table.ok()) << table.status();
  EXPECT_EQ(table->tensors.at("input").samples, 2);
  EXPECT_EQ(table->tensors.at("input").parts[0].begin, 1024u);
  EXPECT_EQ(*LargestTokenSeen(*table), 7);
  const absl::Status torn = OpenTokens({Write("torn.bin", good + "x")}, Tokens(5)).status();
  EXPECT_THAT(std::string(torn.message()), HasSubstr("'torn.bin' cannot be used: it begins as a file of llm.c"));
  const absl::Status other = OpenTokens({Write("a.bin", good)}, Tokens(5, v1::TOKEN_TYPE_UINT32)).status();
  EXPECT_THAT(std::string(other.message()), HasSubstr("are uint16, as llm.c says, not uint32"));
  preamble[0] = 20240801, preamble[1] = 7;
  const auto wide = OpenTokens({Write("b.bin", Bytes(preamble) + Bytes(std::vector<uint32_t>(11, 99999)))}, Tokens(5));
  ASSERT_TRUE(wide.ok()) << wide.status();
  EXPECT_EQ(*LargestTokenSeen(*wide), 99999);
}

TEST_F(SampleTableTest, MegatronsIndexGivesTheType) {
  const std::string head = std::string("MMIDIDX\0\0", 9) + Bytes(std::vector<uint64_t>{1});
  DataPath file = Write("a.bin", Bytes(std::vector<int32_t>(11, 70000)));
  file.index = Write(IndexBeside("a.bin"), head + "\x04" + std::string(100, '\0')).path;
  const auto table = OpenTokens({file}, Tokens(5));
  ASSERT_TRUE(table.ok()) << table.status();
  EXPECT_EQ(table->tensors.at("input").storage, Storage::kInt32);
  EXPECT_EQ(*LargestTokenSeen(*table), 70000);
  Write("a.idx", head + "\x06" + std::string(100, '\0'));
  EXPECT_THAT(std::string(OpenTokens({file}, Tokens(5)).status().message()), HasSubstr("type 6"));
  Write("a.idx", "something else");
  EXPECT_THAT(std::string(OpenTokens({file}, Tokens(5)).status().message()), HasSubstr("not an index of Megatron's"));
}

TEST_F(SampleTableTest, TokensWithoutATypeOrCutInTheMiddleAreRefused) {
  const DataPath odd = Write("odd.bin", "abc");
  EXPECT_THAT(std::string(OpenTokens({odd}, Tokens(5)).status().message()), HasSubstr("give dtype"));
  EXPECT_THAT(std::string(OpenTokens({odd}, Tokens(5, v1::TOKEN_TYPE_UINT16)).status().message()),
              HasSubstr("3 bytes are no whole number of uint16 tokens"));
}

TEST_F(SampleTableTest, APatternIsTheFilesThatMatchByName) {
  for (const char* name : {"d/part-10.bin", "d/part-2.bin", "d/.part-0.bin", "d/part-1.idx", "d/odd[1].bin"}) {
    Write(name, "");
  }
  const std::string prefix = folder_.path().string() + "/";
  EXPECT_THAT(*Expand(prefix, "d/part-*.bin"), ElementsAre("d/part-10.bin", "d/part-2.bin"));
  EXPECT_THAT(*Expand(prefix, "d/odd[1].bin"), ElementsAre("d/odd[1].bin")) << "a file of that name is meant";
  EXPECT_THAT(*Expand(prefix, "d/nothing.bin"), ElementsAre("d/nothing.bin")) << "no pattern";
  EXPECT_TRUE(absl::IsNotFound(Expand(prefix, "d/x*").status()));
  EXPECT_THAT(*Expand("", prefix + "d/*.idx"), ElementsAre(prefix + "d/part-1.idx"));
}

}  // namespace
}  // namespace gpipe::data
