#include "orchestrator/scheduling/round_files.h"

#include <string>
#include <vector>

#include "gmock/gmock.h"
#include "gtest/gtest.h"

namespace gpipe::orchestrator {
namespace {

using testing::ElementsAre;
using testing::IsEmpty;

v1::ArtifactRef Ref(const std::string& sha256) {
  v1::ArtifactRef ref;
  ref.set_sha256(sha256);
  return ref;
}

v1::RoundAnswer Answer(const std::vector<std::string>& results) {
  v1::RoundAnswer answer;
  for (const std::string& result : results) *answer.add_results() = Ref(result);
  return answer;
}

std::vector<std::string> FilesOf(const std::vector<Store::Dropped>& dropped) {
  std::vector<std::string> files;
  for (const Store::Dropped& some : dropped) {
    for (const v1::ArtifactRef& file : some.files) files.push_back(file.sha256());
  }
  return files;
}

const absl::Time kBegin = absl::UnixEpoch();

TEST(RoundFilesTest, GoSomeTimeAfterTheirRoundWasAnswered) {
  RoundFiles files;
  files.Ask(Ref("a"), kBegin);
  files.Ask(Ref("b"), kBegin);
  EXPECT_THAT(files.TakeOld(kBegin + absl::Hours(9)), IsEmpty()) << "no round is answered";
  const absl::Time answered = kBegin + absl::Hours(9);
  files.Answer(Answer({"x", "y"}), answered);
  EXPECT_THAT(files.TakeOld(answered + RoundFiles::kLast - absl::Seconds(1)), IsEmpty());
  EXPECT_THAT(FilesOf(files.TakeOld(answered + RoundFiles::kLast)), ElementsAre("a", "x", "y"));
  EXPECT_THAT(files.TakeOld(answered + RoundFiles::kLast), IsEmpty()) << "each once";
}

TEST(RoundFilesTest, WhoHasClaimedOneSinceItWasAskedForKeepsIt) {
  RoundFiles files;
  files.Ask(Ref("a"), kBegin);
  files.Answer(Answer({"x"}), kBegin + absl::Seconds(5));
  const auto old = files.TakeOld(kBegin + absl::Hours(1));
  ASSERT_EQ(old.size(), 2u);
  EXPECT_EQ(old[0].since, kBegin);
  EXPECT_EQ(old[1].since, kBegin + absl::Seconds(5));
}

TEST(RoundFilesTest, RoundsWithoutFilesAndThoseInASharedFolderHaveNothing) {
  RoundFiles files;
  v1::ArtifactRef shared;
  shared.set_shared_path("/dev/shm/x");
  files.Ask({}, kBegin);
  files.Ask(shared, kBegin);
  files.Answer({}, kBegin);
  files.Answer(Answer({}), kBegin);
  files.Answer(Answer({"x"}), kBegin);  // Nobody's: the storing of the model.
  EXPECT_THAT(files.TakeOld(kBegin + absl::Hours(1)), IsEmpty());
}

}  // namespace
}  // namespace gpipe::orchestrator
