#include "worker/data/tensor_file.h"

#include <ATen/ATen.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <fstream>

#include "common/file.h"

namespace gpipe::worker {
namespace {

using ::testing::HasSubstr;

class TensorFileTest : public ::testing::Test {
 protected:
  TensorFileTest() : folder_(TemporaryFolder::Create("tensor_file_test").value()) {}
  std::filesystem::path Path(const std::string& name) const { return folder_.path() / name; }

  TemporaryFolder folder_;
};

TEST_F(TensorFileTest, ReadsBackEveryTypeAndShapeItWrote) {
  std::vector<NamedTensor> written;
  for (const auto type : {c10::kFloat, c10::kDouble, c10::kHalf, c10::kBFloat16, c10::kLong, c10::kInt, c10::kShort,
                          c10::kChar, c10::kByte, c10::kBool}) {
    written.push_back({std::string("matrix.") + c10::toString(type), 0, at::arange(6).reshape({2, 3}).to(type)});
    written.push_back({std::string("scalar.") + c10::toString(type), 0, at::ones({}, type)});
  }
  written.push_back({"empty", 0, at::empty({0, 4})});
  ASSERT_TRUE(WriteTensorFile(Path("all"), written).ok());

  const auto file = TensorFile::Open(Path("all"));
  ASSERT_TRUE(file.ok()) << file.status();
  EXPECT_EQ((*file)->header().tensors.size(), written.size());
  for (const NamedTensor& named : written) {
    const auto read = (*file)->Get(named.name);
    ASSERT_TRUE(read.ok()) << read.status();
    EXPECT_EQ(read->scalar_type(), named.tensor.scalar_type()) << named.name;
    EXPECT_TRUE(at::equal(*read, named.tensor)) << named.name;
  }
}

TEST_F(TensorFileTest, WritesViewsAsWhatTheyShow) {
  const at::Tensor matrix = at::arange(12, at::kFloat).reshape({3, 4});
  ASSERT_TRUE(WriteTensorFile(Path("t"), {{"transposed", 0, matrix.t()}}).ok());
  const auto file = TensorFile::Open(Path("t"));
  ASSERT_TRUE(file.ok()) << file.status();
  EXPECT_TRUE(at::equal((*file)->Get("transposed").value(), matrix.t()));
}

TEST_F(TensorFileTest, NamesTheMissingTensorAndTheFile) {
  ASSERT_TRUE(WriteTensorFile(Path("small"), {{"a", 0, at::ones({1})}}).ok());
  const auto file = TensorFile::Open(Path("small"));
  ASSERT_TRUE(file.ok()) << file.status();
  const auto missing = (*file)->Get("b");
  EXPECT_EQ(missing.status().code(), absl::StatusCode::kNotFound);
  EXPECT_THAT(std::string(missing.status().message()), HasSubstr("'b'"));
  EXPECT_THAT(std::string(missing.status().message()), HasSubstr("small"));
}

TEST_F(TensorFileTest, RefusesAMissingAndATruncatedFile) {
  EXPECT_EQ(TensorFile::Open(Path("none")).status().code(), absl::StatusCode::kNotFound);
  ASSERT_TRUE(WriteTensorFile(Path("cut"), {{"a", 0, at::ones({100})}}).ok());
  std::filesystem::resize_file(Path("cut"), std::filesystem::file_size(Path("cut")) - 1);
  EXPECT_EQ(TensorFile::Open(Path("cut")).status().code(), absl::StatusCode::kInvalidArgument);
}

// The writer of a file chooses how its header is padded, so a float may start at any byte.
TEST_F(TensorFileTest, ReadsTensorsAtOddOffsets) {
  std::string json = R"({"a":{"dtype":"F32","shape":[2],"data_offsets":[0,8]}})";
  json.append(8 - json.size() % 8 + 1, ' ');
  const uint64_t length = json.size();
  const float values[] = {1.5f, -2.0f};
  std::ofstream out(Path("odd"), std::ios::binary);
  out.write(reinterpret_cast<const char*>(&length), sizeof length);
  out << json;
  out.write(reinterpret_cast<const char*>(values), sizeof values);
  out.close();

  const auto file = TensorFile::Open(Path("odd"));
  ASSERT_TRUE(file.ok()) << file.status();
  EXPECT_TRUE(at::equal((*file)->Get("a").value(), at::tensor({1.5f, -2.0f})));
}

}  // namespace
}  // namespace gpipe::worker
