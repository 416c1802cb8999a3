#include "worker/comm/process_claim.h"

#include <sys/wait.h>
#include <unistd.h>

#include <string>

#include "absl/strings/str_cat.h"
#include "gtest/gtest.h"

namespace gpipe::worker {
namespace {

// What a process that does nothing else gets.
bool ClaimInAnother(const std::string& name) {
  const pid_t child = fork();
  if (child == 0) _exit(ClaimForProcess(name) ? 0 : 1);
  int status = -1;
  EXPECT_EQ(waitpid(child, &status, 0), child);
  EXPECT_TRUE(WIFEXITED(status));
  return WEXITSTATUS(status) == 0;
}

TEST(ProcessClaimTest, IsHeldUntilItsProcessEnds) {
  const std::string name = absl::StrCat("gpipe-claim-test-", getpid());
  EXPECT_TRUE(ClaimInAnother(name));
  EXPECT_TRUE(ClaimForProcess(name));  // The one before has ended.
  EXPECT_FALSE(ClaimInAnother(name));
  EXPECT_TRUE(ClaimInAnother(name + "0"));
}

}  // namespace
}  // namespace gpipe::worker
