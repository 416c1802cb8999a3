#include "worker/checkpoint/shard_writer.h"

#include <ATen/ATen.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "common/artifacts/layout.h"
#include "common/artifacts/parts.h"
#include "common/file.h"
#include "common/sha256.h"
#include "tests/unit/worker/memory_artifacts.h"
#include "worker/data/tensor_file.h"

namespace gpipe::worker {
namespace {

using ::testing::HasSubstr;

class ShardWriterTest : public ::testing::Test {
 protected:
  ShardWriterTest() : folder_(TemporaryFolder::Create("shard_writer_test").value()) {
    std::filesystem::create_directory(scratch());
    // Pieces of several sizes: none, a few bytes, and more than two of the largest.
    tensors_ = {{"large", 0, at::randn({5 << 20, 2})},
                {"none", 0, at::empty({0, 3})},
                {"view", 0, at::randn({300, 700}).t()},
                {"scalar", 0, at::scalar_tensor(7, at::kLong)}};
  }

  static v1::PartOf Final() {
    v1::AttemptId attempt;
    attempt.set_job("job");
    attempt.set_attempt(1);
    return MakePartOf(attempt);
  }
  std::filesystem::path parts() const { return PartFolder(folder_.path(), Final()); }
  std::filesystem::path scratch() const { return folder_.path() / "scratch"; }
  ShardOptions Left(int64_t max_shard_bytes) {
    return {.max_shard_bytes = max_shard_bytes,
            .part_of = Final(),
            .artifacts = folder_.path(),
            .scratch = scratch(),
            .stop = stop_.get_token()};
  }
  ShardOptions Uploaded(int64_t max_shard_bytes) {
    return {.max_shard_bytes = max_shard_bytes, .part_of = Final(), .scratch = scratch(), .stop = stop_.get_token()};
  }
  static int CountFiles(const std::filesystem::path& folder) {
    return static_cast<int>(std::distance(std::filesystem::directory_iterator(folder), {}));
  }

  // All tensors, each in one of the files, which are what the references say.
  void ExpectWhole(const Refs& refs, const std::function<std::filesystem::path(const v1::ArtifactRef&)>& find) {
    std::map<std::string, at::Tensor> found;
    for (const v1::ArtifactRef& ref : refs) {
      const std::filesystem::path path = find(ref);
      EXPECT_EQ(Sha256OfFile(path).value(), ref.sha256());
      EXPECT_EQ(static_cast<int64_t>(std::filesystem::file_size(path)), ref.size());
      const auto file = TensorFile::Open(path).value();
      for (const auto& [name, info] : file->header().tensors) found[name] = file->Get(name).value().clone();
    }
    EXPECT_EQ(found.size(), tensors_.size());
    for (const NamedTensor& named : tensors_) EXPECT_TRUE(at::equal(found.at(named.name), named.tensor)) << named.name;
  }

  TemporaryFolder folder_;
  std::stop_source stop_;
  MemoryArtifacts artifacts_;
  std::vector<NamedTensor> tensors_;
};

TEST_F(ShardWriterTest, OneFileUpToTheLimit) {
  const auto refs = WriteShards(tensors_, Left(1 << 30), artifacts_);
  ASSERT_TRUE(refs.ok()) << refs.status();
  EXPECT_EQ(refs->size(), 1);
  ExpectWhole(*refs, [&](const v1::ArtifactRef& ref) { return parts() / ref.sha256(); });
  EXPECT_EQ(CountFiles(parts()), 1);
}

TEST_F(ShardWriterTest, SeveralBeyondItAndATensorThatIsLargerHasItsOwn) {
  const auto refs = WriteShards(tensors_, Left(840'000), artifacts_);
  ASSERT_TRUE(refs.ok()) << refs.status();
  EXPECT_EQ(refs->size(), 3);  // large, none with view, scalar.
  ExpectWhole(*refs, [&](const v1::ArtifactRef& ref) { return parts() / ref.sha256(); });
  EXPECT_EQ(CountFiles(parts()), 3);
}

TEST_F(ShardWriterTest, WhatIsUploadedLeavesNoFile) {
  const auto refs = WriteShards(tensors_, Uploaded(1'000'000), artifacts_);
  ASSERT_TRUE(refs.ok()) << refs.status();
  EXPECT_EQ(refs->size(), 2);
  EXPECT_EQ(CountFiles(scratch()), 0);
  ExpectWhole(*refs, [&](const v1::ArtifactRef& ref) {
    EXPECT_TRUE(artifacts_.Download(ref, folder_.path() / ref.sha256()).ok());
    return folder_.path() / ref.sha256();
  });
}

TEST_F(ShardWriterTest, NoTensorsAreAFileWithoutAny) {
  tensors_.clear();
  const auto refs = WriteShards(tensors_, Left(1), artifacts_);
  ASSERT_TRUE(refs.ok()) << refs.status();
  EXPECT_EQ(refs->size(), 1);
  ExpectWhole(*refs, [&](const v1::ArtifactRef& ref) { return parts() / ref.sha256(); });
}

TEST_F(ShardWriterTest, AnAbortEndsItAndLeavesNothing) {
  stop_.request_stop();
  EXPECT_TRUE(absl::IsCancelled(WriteShards(tensors_, Left(1), artifacts_).status()));
  EXPECT_EQ(CountFiles(parts()), 0);
  EXPECT_TRUE(absl::IsCancelled(WriteShards(tensors_, Uploaded(1), artifacts_).status()));
  EXPECT_EQ(CountFiles(scratch()), 0);
}

TEST_F(ShardWriterTest, ATypeThatTheFormatLacksIsNamed) {
  tensors_.push_back({"complex", 0, at::zeros({2}, at::kComplexDouble)});
  const absl::Status refused = WriteShards(tensors_, Left(1), artifacts_).status();
  EXPECT_TRUE(absl::IsInvalidArgument(refused));
  EXPECT_THAT(std::string(refused.message()), HasSubstr("'complex'"));
}

TEST_F(ShardWriterTest, AFolderThatCannotBeWrittenToIsNamed) {
  ASSERT_TRUE(WriteFileAtomically(folder_.path() / kTemporaryFolder, "a file").ok());
  const absl::Status refused = WriteShards(tensors_, Left(1), artifacts_).status();
  EXPECT_THAT(std::string(refused.message()), HasSubstr(parts().string()));
}

}  // namespace
}  // namespace gpipe::worker
