#include "client/local/process.h"

#include <fcntl.h>
#include <signal.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <fstream>

#include "absl/strings/str_cat.h"
#include "absl/synchronization/notification.h"
#include "client/local/local_cluster.h"
#include "client/local/signal_watcher.h"
#include "common/file.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"

namespace gpipe::client {
namespace {

namespace fs = std::filesystem;
using testing::HasSubstr;

class ProcessTest : public testing::Test {
 protected:
  ProcessTest() : folder_(TemporaryFolder::Create("gpipe-process-test").value()) {}

  ProcessOptions Shell(const std::string& script) const {
    ProcessOptions options;
    options.program = "/bin/sh";
    options.arguments = {"-c", script};
    options.log = folder_.path() / "log";
    return options;
  }
  std::string Log() const { return ReadFile(folder_.path() / "log").value_or(""); }
  // A program of the private cluster, as a shell script.
  void WriteProgram(const std::string& name, const std::string& script) const {
    std::ofstream(folder_.path() / name) << "#!/bin/sh\n" << script;
    chmod((folder_.path() / name).c_str(), 0700);
  }
  LocalClusterOptions Cluster(int workers) const {
    LocalClusterOptions options;
    options.bin_dir = folder_.path();
    options.workers = workers;
    return options;
  }

  TemporaryFolder folder_;
};

// Says where it listens on the descriptor after --ready-fd, as the real one does, and stays.
constexpr char kServes[] =
    "while [ $# -gt 1 ]; do [ \"$1\" = --ready-fd ] && fd=$2; shift; done\n"
    "eval \"echo 127.0.0.1:1 >&$fd; exec $fd>&-\"\n"
    "exec sleep 1000\n";

// Waits for the writer of a named pipe to say something.
void AwaitWord(const fs::path& pipe) {
  std::ifstream file(pipe);
  std::string word;
  file >> word;
}

bool IsGone(pid_t pid) { return kill(pid, 0) != 0 && errno == ESRCH; }

TEST_F(ProcessTest, SaysHowAChildEndedAndReapsIt) {
  absl::Notification exited;
  ProcessOptions options = Shell("echo out; echo err >&2; exit 3");
  options.on_exit = [&exited] { exited.Notify(); };
  const auto child = ChildProcess::Start(std::move(options)).value();
  exited.WaitForNotification();
  EXPECT_TRUE(child->WaitFor(absl::ZeroDuration()));
  EXPECT_EQ(child->HowItEnded(), "ended with 3");
  EXPECT_EQ(Log(), "out\nerr\n");
  EXPECT_TRUE(IsGone(child->pid()));
}

TEST_F(ProcessTest, AMissingProgramIsNotFound) {
  ProcessOptions options = Shell("");
  options.program = "/nowhere/program";
  const absl::Status status = ChildProcess::Start(std::move(options)).status();
  EXPECT_TRUE(absl::IsNotFound(status));
  EXPECT_THAT(std::string(status.message()), HasSubstr("/nowhere/program"));
}

TEST_F(ProcessTest, StopAsksFirst) {
  const fs::path pipe = folder_.path() / "pipe";
  ASSERT_EQ(mkfifo(pipe.c_str(), 0600), 0);
  const auto child = ChildProcess::Start(Shell(absl::StrCat("trap 'exit 7' TERM; echo ready >", pipe.string(),
                                                            "; while :; do sleep 0.01; done")))
                         .value();
  AwaitWord(pipe);
  child->Stop(absl::Seconds(60));
  EXPECT_EQ(child->HowItEnded(), "ended with 7");
}

TEST_F(ProcessTest, StopKillsWhoDoesNotListen) {
  const fs::path pipe = folder_.path() / "pipe";
  ASSERT_EQ(mkfifo(pipe.c_str(), 0600), 0);
  const auto child = ChildProcess::Start(Shell(absl::StrCat("trap '' TERM; echo ready >", pipe.string(),
                                                            "; while :; do sleep 0.01; done")))
                         .value();
  AwaitWord(pipe);
  child->Stop(absl::Milliseconds(50));
  EXPECT_THAT(child->HowItEnded(), HasSubstr("killed by signal 9"));
  EXPECT_TRUE(IsGone(child->pid()));
}

TEST_F(ProcessTest, TheDestructorLeavesNeitherProcessNorZombie) {
  pid_t pid = 0;
  {
    const auto child = ChildProcess::Start(Shell("sleep 1000")).value();
    pid = child->pid();
  }
  EXPECT_TRUE(IsGone(pid));
  EXPECT_EQ(waitpid(-1, nullptr, WNOHANG), -1);
  EXPECT_EQ(errno, ECHILD);
}

TEST_F(ProcessTest, AChildHasItsOwnGroupNoDescriptorsAndNoBlockedSignals) {
  constexpr int kOpenHere = 200;
  ASSERT_EQ(dup2(STDERR_FILENO, kOpenHere), kOpenHere);
  sigset_t blocked;
  sigemptyset(&blocked);
  sigaddset(&blocked, SIGTERM);
  sigset_t before;
  pthread_sigmask(SIG_BLOCK, &blocked, &before);
  // With builtins only: while a shell starts a program it blocks signals itself.
  const auto child = ChildProcess::Start(Shell("[ -e /proc/$$/fd/200 ] || echo closed\n"
                                               "while read -r line; do case $line in SigBlk*) echo \"$line\" ;; esac; "
                                               "done </proc/$$/status\n"
                                               "cut -d' ' -f5 /proc/$$/stat; echo $$"))
                         .value();
  pthread_sigmask(SIG_SETMASK, &before, nullptr);
  child->WaitFor(absl::InfiniteDuration());
  close(kOpenHere);
  EXPECT_THAT(Log(), HasSubstr("closed\nSigBlk:\t0000000000000000"));
  EXPECT_THAT(Log(), HasSubstr(absl::StrCat("\n", child->pid(), "\n", child->pid(), "\n")));
}

TEST_F(ProcessTest, AClusterStartsAndLeavesNothingBehind) {
  WriteProgram("gpipe-orchestrator", kServes);
  WriteProgram("gpipe-worker", "echo \"$@\"; exec sleep 1000\n");
  const char* tmpdir = std::getenv("TMPDIR");
  const std::string restore = tmpdir == nullptr ? "" : tmpdir;
  const fs::path scratch = folder_.path() / "scratch";
  fs::create_directory(scratch);
  setenv("TMPDIR", scratch.c_str(), 1);
  {
    const auto cluster = LocalCluster::Start(Cluster(3), {}, [] {}).value();
    EXPECT_EQ(cluster->address(), "127.0.0.1:1");
    EXPECT_TRUE(cluster->Failure().ok());
    EXPECT_FALSE(fs::is_empty(scratch));
  }
  EXPECT_TRUE(fs::is_empty(scratch));
  EXPECT_EQ(waitpid(-1, nullptr, WNOHANG), -1);
  restore.empty() ? unsetenv("TMPDIR") : setenv("TMPDIR", restore.c_str(), 1);
}

TEST_F(ProcessTest, AnOrchestratorThatDiesEarlyFailsTheStartWithItsLog) {
  WriteProgram("gpipe-orchestrator", "echo no such folder; exit 4\n");
  const absl::Status status = LocalCluster::Start(Cluster(1), {}, [] {}).status();
  EXPECT_THAT(std::string(status.message()), HasSubstr("orchestrator ended with 4"));
  EXPECT_THAT(std::string(status.message()), HasSubstr("no such folder"));
}

TEST_F(ProcessTest, AStartCanBeInterrupted) {
  WriteProgram("gpipe-orchestrator", "exec sleep 1000\n");
  std::stop_source stop;
  stop.request_stop();
  EXPECT_TRUE(absl::IsCancelled(LocalCluster::Start(Cluster(1), stop.get_token(), [] {}).status()));
}

TEST_F(ProcessTest, TheEndOfTheOrchestratorIsToldAndNamed) {
  const fs::path pipe = folder_.path() / "pipe";
  ASSERT_EQ(mkfifo(pipe.c_str(), 0600), 0);
  WriteProgram("gpipe-orchestrator",
               "while [ $# -gt 1 ]; do [ \"$1\" = --ready-fd ] && fd=$2; shift; done\n"
               "eval \"echo 127.0.0.1:1 >&$fd; exec $fd>&-\"\nread word <" +
                   pipe.string() + "\necho broken; exit 9\n");
  WriteProgram("gpipe-worker", "exec sleep 1000\n");
  absl::Notification failed;
  const auto cluster = LocalCluster::Start(Cluster(1), {}, [&failed] { failed.Notify(); }).value();
  std::ofstream(pipe) << "go\n";
  failed.WaitForNotification();
  EXPECT_THAT(std::string(cluster->Failure().message()), HasSubstr("orchestrator ended with 9"));
  EXPECT_THAT(std::string(cluster->Failure().message()), HasSubstr("broken"));
}

TEST_F(ProcessTest, SignalsAreCountedAndPatienceRunsOut) {
  absl::Notification second;
  int counts = 0;
  SignalWatcher watcher(
      [&](int count) {
        counts = count;
        if (count == 2) second.Notify();
      },
      absl::Milliseconds(20));
  kill(getpid(), SIGINT);
  second.WaitForNotification();
  EXPECT_GE(counts, 2);
}

}  // namespace
}  // namespace gpipe::client
