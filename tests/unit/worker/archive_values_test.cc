// Archives whose tensors have no values, or are not kept as torch.export.save keeps them.

#include <ATen/ATen.h>
#include <caffe2/serialize/inline_container.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <filesystem>

#include "absl/strings/match.h"
#include "common/file.h"
#include "tests/unit/paths.h"
#include "tests/unit/worker/memory_artifacts.h"
#include "worker/exported/archive.h"

namespace gpipe::worker {
namespace {

using ::caffe2::serialize::PyTorchStreamReader;
using ::caffe2::serialize::PyTorchStreamWriter;
using ::testing::HasSubstr;

const std::filesystem::path kFolder = SourceFolder() / "tests/golden";

// The model of `tied`, with and without weights.
class ArchiveValuesTest : public ::testing::Test {
 protected:
  static std::unique_ptr<Archive> Open(const std::string& name) {
    auto archive = Archive::Open(kFolder / (name + ".pt2"));
    EXPECT_TRUE(archive.ok()) << archive.status();
    return *std::move(archive);
  }

  const std::unique_ptr<Archive> full_ = Open("exported/tied");
  const std::unique_ptr<Archive> empty_ = Open("without_weights/tied");
};

TEST_F(ArchiveValuesTest, WhatHasNoValuesIsDescribedAllTheSame) {
  for (const char* name : {"up.weight", "norm.running_mean", "norm.num_batches_tracked", "embedding.weight"}) {
    EXPECT_TRUE(full_->HasValues(name));
    EXPECT_FALSE(empty_->HasValues(name));
    const at::Tensor described = empty_->Describe(name).value(), made = empty_->Allocate(name, at::kCPU).value();
    EXPECT_EQ(described.sizes(), full_->Describe(name)->sizes());
    EXPECT_EQ(described.scalar_type(), full_->Describe(name)->scalar_type());
    EXPECT_EQ(made.sizes(), described.sizes());
    EXPECT_EQ(made.strides(), described.strides());
    EXPECT_EQ(empty_->IsTrainable(name), full_->IsTrainable(name));
  }
}

TEST_F(ArchiveValuesTest, WhatIsTiedIsKnownWithoutValues) {
  const std::string& name = full_->CanonicalName("head.weight");
  EXPECT_EQ(empty_->CanonicalName("head.weight"), name);
  EXPECT_EQ(empty_->CanonicalName("embedding.weight"), name);
  EXPECT_EQ(empty_->AliasesOf(name).size(), 1u);
  EXPECT_EQ(empty_->CanonicalName("norm.bias"), "norm.bias") << "of the shape of norm.weight, and no more";
}

TEST_F(ArchiveValuesTest, LoadingThemSaysWhatToDo) {
  const absl::Status status = empty_->Load("up.weight", at::kCPU).status();
  EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument);
  EXPECT_THAT(std::string(status.message()),
              HasSubstr("'up.weight' was exported without values; say where they are with model.weights"));
}

TEST_F(ArchiveValuesTest, ConstantsAreThere) {
  EXPECT_TRUE(empty_->HasValues("mask"));
  EXPECT_TRUE(at::equal(empty_->Load("mask", at::kCPU).value(), full_->Load("mask", at::kCPU).value()));
}

// The same archive, as another program might pack it.
std::string Compressed(const std::filesystem::path& path) {
  PyTorchStreamReader reader(path.string());
  std::string written;
  PyTorchStreamWriter writer([&](const void* data, size_t size) {
    written.append(static_cast<const char*>(data), size);
    return size;
  });
  for (const std::string& name : reader.getAllRecords()) {
    if (absl::StrContains(name, "version") || absl::StrContains(name, "serialization_id")) continue;
    const auto [data, size] = reader.getRecord(name);
    writer.writeRecord(name, data.get(), size, /*compress=*/absl::StrContains(name, "weight_"));
  }
  writer.writeEndOfFile();
  return written;
}

TEST_F(ArchiveValuesTest, CompressedRecordsAreRefused) {
  MemoryArtifacts artifacts;
  const auto archive = Archive::Open(artifacts, artifacts.Add(Compressed(kFolder / "exported/tied.pt2")));
  ASSERT_TRUE(archive.ok()) << archive.status();
  EXPECT_THAT(std::string((*archive)->Load("up.weight", at::kCPU).status().message()), HasSubstr("is compressed"));
}

}  // namespace
}  // namespace gpipe::worker
