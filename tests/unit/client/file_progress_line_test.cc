#include "client/cli/file_progress_line.h"

#include <algorithm>
#include <cstdio>
#include <string>

#include "gmock/gmock.h"
#include "gtest/gtest.h"

namespace gpipe::client {
namespace {

FileProgress At(int64_t mebibytes, FileProgress::Doing doing = FileProgress::Doing::kHashing) {
  return {doing, "/data/model.pt2", mebibytes << 20, int64_t{1000} << 20};
}

class FileProgressLineTest : public testing::Test {
 protected:
  FileProgressLineTest() : out_(std::tmpfile()) {}
  ~FileProgressLineTest() override { std::fclose(out_); }

  std::string Written() const {
    std::rewind(out_);
    std::string text(1 << 16, '\0');
    text.resize(std::fread(text.data(), 1, text.size(), out_));
    return text;
  }

  std::FILE* const out_;
  const absl::Time start_ = absl::FromUnixSeconds(1000);
};

TEST(RenderFileProgress, SaysWhatHowFarAndHowFast) {
  EXPECT_EQ(RenderFileProgress(At(250), absl::Seconds(2)),
            "reading model.pt2: 250.0 MiB of 1000.0 MiB (25%), 125.0 MiB/s");
  EXPECT_EQ(RenderFileProgress(At(250, FileProgress::Doing::kSending), absl::ZeroDuration()),
            "sending model.pt2: 250.0 MiB of 1000.0 MiB (25%)");
  EXPECT_EQ(RenderFileProgress({FileProgress::Doing::kFetching, "x", 0, 0}, absl::Seconds(1)),
            "fetching x: 0 B of 0 B (100%), 0 B/s");
}

TEST_F(FileProgressLineTest, WhatIsQuickIsNotWorthALine) {
  FileProgressLine line(out_, false);
  for (int i = 0; i <= 40; ++i) line.Show(At(i * 25), start_ + absl::Milliseconds(i * 10));
  EXPECT_EQ(Written(), "");
}

TEST_F(FileProgressLineTest, NorIsItLongAfterwards) {
  FileProgressLine line(out_, false);
  line.Show(At(1000), start_);
  line.Show(At(1000, FileProgress::Doing::kFetching), start_ + absl::Minutes(1));
  EXPECT_EQ(Written(), "");
}

TEST_F(FileProgressLineTest, ALogGetsALineASecond) {
  FileProgressLine line(out_, false);
  for (int i = 0; i <= 100; ++i) line.Show(At(i * 10), start_ + absl::Milliseconds(i * 30));
  const std::string text = Written();
  EXPECT_EQ(std::count(text.begin(), text.end(), '\n'), 3);
  EXPECT_THAT(text, testing::HasSubstr(", 333."));
}

// Silence is what many small files would be, if each began anew.
TEST_F(FileProgressLineTest, ManySmallFilesAreHeardOfToo) {
  FileProgressLine line(out_, false);
  for (int i = 0; i < 100; ++i) {
    FileProgress progress = At(1000);
    progress.path = std::to_string(i);
    line.Show(progress, start_ + absl::Milliseconds(i * 100));
  }
  const std::string text = Written();
  EXPECT_GE(std::count(text.begin(), text.end(), '\n'), 8);
}

TEST_F(FileProgressLineTest, ATerminalKeepsNothingOfIt) {
  FileProgressLine line(out_, true);
  for (int i = 0; i <= 100; ++i) line.Show(At(i * 10), start_ + absl::Milliseconds(i * 30));
  const std::string text = Written();
  EXPECT_EQ(std::count(text.begin(), text.end(), '\n'), 0);
  EXPECT_GT(std::count(text.begin(), text.end(), '\r'), 15);
  EXPECT_TRUE(text.ends_with("\r\x1b[K"));
}

}  // namespace
}  // namespace gpipe::client
