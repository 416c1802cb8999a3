#include "common/log_output.h"

#include <filesystem>
#include <fstream>
#include <vector>

#include "absl/strings/str_cat.h"
#include "common/logging.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "nlohmann/json.hpp"
#include "spdlog/spdlog.h"

namespace gpipe {
namespace {

using ::testing::HasSubstr;

TEST(ContextOfTest, ReadsWhatAnEntryBeginsWith) {
  LogContext context = ContextOf("job digits-abc123 attempt 2: fetching");
  EXPECT_EQ(context.job, "digits-abc123");
  EXPECT_EQ(context.attempt, 2);
  EXPECT_EQ(ContextOf("job digits-abc123 is RUNNING: all workers are prepared").job, "digits-abc123");
  EXPECT_EQ(ContextOf("job x-1: saved").job, "x-1");
  context = ContextOf("worker w1 is LOST: connection closed");
  EXPECT_EQ(context.worker, "w1");
  EXPECT_EQ(context.job, "");
  EXPECT_EQ(ContextOf("jobs wait").job, "");
  EXPECT_EQ(ContextOf("").job, "");
}

class LogOutputTest : public testing::Test {
 protected:
  void SetUp() override { ASSERT_TRUE(InitLogging("tested", "info").ok()); }
  void TearDown() override { spdlog::set_default_logger(before_); }

  std::vector<std::string> Lines(const std::string& file) const {
    std::ifstream in(file);
    std::vector<std::string> lines;
    for (std::string line; std::getline(in, line);) lines.push_back(line);
    return lines;
  }
  const std::shared_ptr<spdlog::logger> before_ = spdlog::default_logger();
  const std::string folder_ = [] {
    std::string name = testing::TempDir() + "log_XXXXXX";
    return std::string(mkdtemp(name.data()));
  }();
  LogOutput output_ = {.file = folder_ + "/daemon.log"};
};

TEST_F(LogOutputTest, JsonSaysWhatAnEntryIsAbout) {
  output_.json = true;
  const auto source = std::make_shared<LogContextSource>();
  ASSERT_TRUE(SetLogOutput(output_, source).ok());
  spdlog::info("before");
  source->Follow([] { return LogContext{.worker = "w0", .job = "j-1", .attempt = 3, .stage = 1, .step = 17}; });
  spdlog::warn("two\nlines \x1b[31m and \"quotes\"");
  spdlog::info("job j-2 attempt 1: another's");
  source->Follow(nullptr);
  spdlog::debug("too fine");

  const std::vector<std::string> lines = Lines(output_.file);
  ASSERT_EQ(lines.size(), 3);
  const auto before = nlohmann::json::parse(lines[0]);
  EXPECT_EQ(before["message"], "before");
  EXPECT_EQ(before["level"], "info");
  EXPECT_EQ(before["program"], "tested");
  EXPECT_THAT(before["ts"].get<std::string>(), testing::MatchesRegex("20..-..-..T..:..:..\\.......Z"));
  EXPECT_FALSE(before.contains("job"));
  EXPECT_FALSE(before.contains("step"));
  const auto warning = nlohmann::json::parse(lines[1]);
  EXPECT_EQ(warning["message"], "two\nlines \\x1b[31m and \"quotes\"");
  EXPECT_EQ(warning["level"], "warning");
  EXPECT_EQ(warning["worker"], "w0");
  EXPECT_EQ(warning["job"], "j-1");
  EXPECT_EQ(warning["attempt"], 3);
  EXPECT_EQ(warning["stage"], 1);
  EXPECT_EQ(warning["step"], 17);
  const auto another = nlohmann::json::parse(lines[2]);
  EXPECT_EQ(another["job"], "j-2");
  EXPECT_EQ(another["attempt"], 1);
  EXPECT_EQ(another["worker"], "w0");
  EXPECT_FALSE(another.contains("step"));
}

TEST_F(LogOutputTest, TextInAFileIsAsOnATerminal) {
  ASSERT_TRUE(SetLogOutput(output_).ok());
  spdlog::info("one\ntwo");
  const std::vector<std::string> lines = Lines(output_.file);
  ASSERT_EQ(lines.size(), 2);
  EXPECT_THAT(lines[0], HasSubstr(" info tested one"));
  EXPECT_EQ(lines[1], "  | two");
}

TEST_F(LogOutputTest, AFileIsMovedAsideAndFewAreKept) {
  output_.max_file_bytes = 1000;
  ASSERT_TRUE(SetLogOutput(output_).ok());
  for (int i = 0; i < 200; ++i) spdlog::info("entry {}", i);
  int files = 0;
  for (const auto& entry : std::filesystem::directory_iterator(folder_)) {
    EXPECT_LE(entry.file_size(), 1000);
    ++files;
  }
  EXPECT_EQ(files, 1 + LogOutput::kOldFiles);
  EXPECT_THAT(Lines(output_.file).back(), HasSubstr("entry 199"));
}

TEST_F(LogOutputTest, NamesAFileThatCannotBeWritten) {
  output_.file = folder_ + "/a_file";
  std::ofstream(output_.file) << "there";
  output_.file += "/below";
  const absl::Status refused = SetLogOutput(output_);
  EXPECT_TRUE(absl::IsInvalidArgument(refused));
  EXPECT_THAT(std::string(refused.message()), HasSubstr("--log-file " + output_.file));
}

}  // namespace
}  // namespace gpipe
