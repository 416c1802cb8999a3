#include <fcntl.h>
#include <signal.h>
#include <sys/wait.h>
#include <unistd.h>

#include <random>
#include <set>
#include <sstream>

#include "tests/unit/orchestrator/store_testing.h"

namespace gpipe::orchestrator {
namespace {

// In a child process: commits batches of jobs for ever, and reports each id once it is acknowledged, a line each.
[[noreturn]] void SubmitForEver(const std::filesystem::path& folder, int round, int report_fd) {
  auto store = Store::Open(folder);
  if (!store.ok()) _exit(1);
  for (int i = 0;; ++i) {
    auto batch = (*store)->Begin();
    if (!batch.ok()) _exit(2);
    std::string report;
    for (int j = 0; j <= i % 4; ++j) {
      std::string id = std::to_string(round) + "-" + std::to_string(i) + "-" + std::to_string(j);
      if (!(*store)->InsertJob(MakeJob(id, "request of " + id)).ok()) _exit(3);
      if (!(*store)->AppendEvent(id, {}).ok()) _exit(4);
      report += id + "\n";
    }
    if (!batch->Commit().ok()) _exit(5);
    if (write(report_fd, report.data(), report.size()) != static_cast<ssize_t>(report.size())) _exit(6);
  }
}

// Reads until at least `bytes` were reported, kills the child, and reads what it had reported until then.
std::string KillAfter(pid_t child, int report_fd, size_t bytes) {
  std::string reported;
  char piece[512];
  bool killed = false;
  for (;;) {
    if (!killed && reported.size() >= bytes) {
      kill(child, SIGKILL);
      killed = true;
    }
    ssize_t got = read(report_fd, piece, sizeof(piece));
    if (got <= 0) break;
    reported.append(piece, got);
  }
  return reported;
}

TEST(StoreCrashTest, AnAcknowledgedSubmissionSurvivesKill) {
  TemporaryFolder folder = *TemporaryFolder::Create("store_crash_test");
  std::mt19937 random(1);
  std::set<std::string> acknowledged;
  for (int round = 0; round < 10; ++round) {
    int pipe_fds[2];
    ASSERT_EQ(pipe2(pipe_fds, O_CLOEXEC), 0);
    pid_t child = fork();
    ASSERT_GE(child, 0);
    if (child == 0) SubmitForEver(folder.path(), round, pipe_fds[1]);
    close(pipe_fds[1]);
    std::istringstream reported(KillAfter(child, pipe_fds[0], 1 + random() % 600));
    close(pipe_fds[0]);
    int status = 0;
    ASSERT_EQ(waitpid(child, &status, 0), child);
    ASSERT_TRUE(WIFSIGNALED(status)) << "the child left by itself with " << WEXITSTATUS(status);

    for (std::string id; std::getline(reported, id) && !reported.eof();) acknowledged.insert(id);
    ASSERT_FALSE(acknowledged.empty());
    auto store = Store::Open(folder.path());  // The kernel has given up the child's lock.
    ASSERT_TRUE(store.ok()) << store.status();
    for (const std::string& id : acknowledged) {
      auto found = (*store)->GetJob(id);
      ASSERT_TRUE(found.ok()) << found.status();
      EXPECT_EQ(found->request_id, "request of " + id);
      EXPECT_EQ((*store)->ListEvents(id, 0, "")->items.size(), 1u);
    }
  }
}

}  // namespace
}  // namespace gpipe::orchestrator
