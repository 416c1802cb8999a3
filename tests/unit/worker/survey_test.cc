// Files that every worker sees: where they are, whether they are the same, and what they hold.

#include "worker/data/survey.h"

#include <fstream>

#include "absl/strings/str_cat.h"
#include "common/field_error.h"
#include "common/file.h"
#include "common/grpc_status.h"
#include "common/safetensors/header.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "tests/unit/worker/memory_artifacts.h"

namespace gpipe::worker {
namespace {

using testing::ElementsAre;
using testing::HasSubstr;

class SurveyTest : public testing::Test {
 protected:
  void Write(const std::string& path, const std::string& content) {
    std::filesystem::create_directories((folder_.path() / path).parent_path());
    std::ofstream(folder_.path() / path, std::ios::binary) << content;
  }

  void WriteSamples(const std::string& path, int64_t samples) {
    std::vector<std::pair<std::string, safetensors::TensorInfo>> tensors = {
        {"x", {.dtype = v1::DATA_TYPE_FLOAT32, .shape = {samples, 3}}}};
    const std::string header = safetensors::BuildHeader(tensors);
    Write(path, header + std::string(static_cast<size_t>(samples) * 12, '\0'));
  }

  v1::Surveyed Ask(v1::SharedPaths::Content content, const std::vector<std::string>& paths) {
    v1::Survey survey;
    survey.set_id(7);
    v1::SharedPaths& asked = *survey.add_asked();
    asked.set_field("field");
    asked.set_content(content);
    for (const std::string& path : paths) asked.add_paths(path);
    asked.mutable_tokens()->set_sequence_length(2);
    asked.mutable_tokens()->set_dtype(v1::TOKEN_TYPE_UINT8);
    v1::Surveyed answer = AnswerSurvey(survey, shared_);
    EXPECT_EQ(answer.id(), 7);
    return answer;
  }

  std::string Refusal(v1::SharedPaths::Content content, const std::string& path) {
    const absl::Status status = FromProto(Ask(content, {path}).status());
    const std::vector<FieldViolation> violations = FieldViolations(status);
    if (violations.size() != 1 || violations[0].field != "field") return absl::StrCat("not one: ", status.ToString());
    return violations[0].description;
  }

  const TemporaryFolder folder_ = *TemporaryFolder::Create("survey-test");
  const SharedFiles shared_{folder_.path()};
};

TEST_F(SurveyTest, PathsAreFoundBelowTheRootAndNeverOutsideOfIt) {
  EXPECT_EQ(shared_.Locate("/a/b.bin"), folder_.path() / "a/b.bin");
  EXPECT_EQ(shared_.Locate("/../../etc/x"), folder_.path() / "etc/x");
  EXPECT_EQ(SharedFiles().Locate("/a/b.bin"), "/a/b.bin");
}

TEST_F(SurveyTest, AFileIsKnownBySizeAndTimeOfChange) {
  Write("a", "content");
  const v1::ArtifactRef ref = *shared_.Describe("/a");
  EXPECT_EQ(ref.size(), 7);
  EXPECT_TRUE(shared_.Check(ref).ok());
  Write("a", "more content");
  const absl::Status larger = shared_.Check(ref);
  EXPECT_TRUE(absl::IsFailedPrecondition(larger));
  EXPECT_THAT(std::string(larger.message()), HasSubstr("shared:/a is not the same on every worker: 12 bytes"));
  Write("a", "content");
  const auto time = std::filesystem::last_write_time(folder_.path() / "a");
  std::filesystem::last_write_time(folder_.path() / "a", time + std::chrono::seconds(5));
  EXPECT_THAT(std::string(shared_.Check(ref).message()), HasSubstr("changed at"));
  std::filesystem::remove(folder_.path() / "a");
  EXPECT_THAT(std::string(shared_.Check(ref).message()), HasSubstr("No such file"));
}

TEST_F(SurveyTest, WholeSecondsAreEnoughWhereAFileSystemKeepsNoMore) {
  Write("a", "content");
  v1::ArtifactRef ref = *shared_.Describe("/a");
  ref.set_modified_nanos(ref.modified_nanos() / 1'000'000'000 * 1'000'000'000);
  EXPECT_TRUE(shared_.Check(ref).ok());
}

TEST_F(SurveyTest, SamplesOfFilesAddUpAndPatternsAreExpanded) {
  WriteSamples("d/2.safetensors", 4);
  WriteSamples("d/1.safetensors", 5);
  const v1::Surveyed answer = Ask(v1::SharedPaths::CONTENT_SAMPLES, {"shared:/d/*.safetensors"});
  ASSERT_TRUE(FromProto(answer.status()).ok());
  const v1::SharedContent& found = answer.found(0);
  EXPECT_THAT(found.paths(), ElementsAre("shared:/d/1.safetensors", "shared:/d/2.safetensors"));
  EXPECT_EQ(found.files().at("shared:/d/1.safetensors").shared_path(), "/d/1.safetensors");
  ASSERT_EQ(found.tensors_size(), 1);
  EXPECT_THAT(found.tensors(0).shape(), ElementsAre(9, 3));
}

TEST_F(SurveyTest, TokensWithTheIndexBesideThem) {
  Write("a.bin", std::string("\1\2\3\4\5\6\7", 7));
  Write("a.idx", std::string("MMIDIDX\0\0\1\0\0\0\0\0\0\0\1", 18) + std::string(16, '\0'));
  const v1::SharedContent found = Ask(v1::SharedPaths::CONTENT_TOKENS, {"shared:/a.bin"}).found(0);
  EXPECT_THAT(found.paths(), ElementsAre("shared:/a.bin"));
  EXPECT_TRUE(found.files().contains("shared:/a.idx"));
  EXPECT_EQ(found.largest_token(), 7);
  EXPECT_THAT(found.tensors(0).shape(), ElementsAre(3, 2));
}

TEST_F(SurveyTest, WeightsOfAnIndexAreThoseThatItNames) {
  WriteSamples("m/1.safetensors", 4);
  Write("m/model.safetensors.index.json", R"({"weight_map": {"x": "1.safetensors"}})");
  const v1::SharedContent found =
      Ask(v1::SharedPaths::CONTENT_WEIGHTS, {"shared:/m/model.safetensors.index.json"}).found(0);
  EXPECT_TRUE(found.files().contains("shared:/m/1.safetensors"));
  EXPECT_THAT(found.tensors(0).shape(), ElementsAre(4, 3));
  Write("m/model.safetensors.index.json", R"({"weight_map": {"x": "1.safetensors", "y": "1.safetensors"}})");
  EXPECT_THAT(Refusal(v1::SharedPaths::CONTENT_WEIGHTS, "shared:/m/model.safetensors.index.json"),
              HasSubstr("names 2 tensors, of which its files have 1"));
}

TEST_F(SurveyTest, WhatIsWrongIsToldByFieldAndFile) {
  Write("torn.safetensors", "torn");
  EXPECT_THAT(Refusal(v1::SharedPaths::CONTENT_SAMPLES, "shared:/torn.safetensors"),
              HasSubstr("'shared:/torn.safetensors' cannot be used"));
  EXPECT_THAT(Refusal(v1::SharedPaths::CONTENT_FILE, "shared:/gone"), HasSubstr("gone: No such file"));
  EXPECT_THAT(Refusal(v1::SharedPaths::CONTENT_FILE, "shared:/gone*"), HasSubstr("no file matches"));
}

TEST_F(SurveyTest, ArtifactsReadSharedFilesWhereTheyAre) {
  Write("a", "0123456789");
  MemoryArtifacts sent;
  SharedArtifacts artifacts(sent, shared_);
  const v1::ArtifactRef ref = *shared_.Describe("/a");
  std::string part(4, ' ');
  ASSERT_TRUE(artifacts.Read(ref, 3, absl::MakeSpan(part)).ok());
  EXPECT_EQ(part, "3456");
  EXPECT_TRUE(absl::IsDataLoss(artifacts.Read(ref, 8, absl::MakeSpan(part))));
}

}  // namespace
}  // namespace gpipe::worker
