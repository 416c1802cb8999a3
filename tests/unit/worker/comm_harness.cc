#include "tests/unit/worker/comm_harness.h"

#include <ATen/Context.h>
#include <signal.h>
#include <spawn.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cstdlib>
#include <map>
#include <optional>
#include <thread>

#include "absl/strings/str_cat.h"
#include "gtest/gtest.h"
#include "tests/unit/worker/process_rendezvous.h"
#include "worker/comm/connect.h"
#include "worker/comm/fault_injecting_communicator.h"
#include "worker/comm/in_process_communicator.h"
#include "worker/comm/in_process_rendezvous.h"

extern char** environ;

namespace gpipe::worker {
namespace {

constexpr absl::Duration kJoinTimeout = absl::Seconds(60);
constexpr int kRankLifetimeSeconds = 90;
constexpr char kRankVariable[] = "GPIPE_TEST_COMM_RANK";
constexpr char kSocketVariable[] = "GPIPE_TEST_COMM_SOCKET";

CommOptions MakeOptions(int rank, int size, const std::vector<Channel>& channels, c10::Device device) {
  CommOptions options;
  options.rank = rank;
  options.size = size;
  options.device = device;
  options.data_address = "127.0.0.1";
  options.channels = channels;
  options.timeout = kJoinTimeout;
  return options;
}

// Ranks are threads. `connect` makes a rank's communicator, on its thread.
class ThreadHarness final : public CommHarness {
 public:
  using Connecting = std::function<absl::StatusOr<std::unique_ptr<Communicator>>(const CommOptions&)>;
  // Called once a run.
  using Prepare = std::function<Connecting(int size, const std::vector<Channel>&)>;

  explicit ThreadHarness(Prepare prepare) : prepare_(std::move(prepare)) {}

  void Run(int size, const std::vector<Channel>& channels, const RankBody& body, int vanishing) override {
    const Connecting connecting = prepare_(size, channels);
    InProcessRendezvous side;
    std::vector<std::thread> threads;
    for (int rank = 0; rank < size; ++rank) {
      threads.emplace_back([&, rank] {
        absl::StatusOr<std::unique_ptr<Communicator>> comm = connecting(MakeOptions(rank, size, channels, c10::kCPU));
        ASSERT_TRUE(comm.ok()) << "rank " << rank << ": " << comm.status();
        RankContext context{rank, size, c10::kCPU, *std::move(comm), &side, false};
        body(context);
      });
    }
    for (std::thread& thread : threads) thread.join();
  }

 private:
  const Prepare prepare_;
};

// The communicators of one run; each thread takes its own.
ThreadHarness::Connecting TakeFrom(absl::StatusOr<std::vector<std::unique_ptr<Communicator>>> made) {
  EXPECT_TRUE(made.ok()) << made.status();
  auto all = std::make_shared<std::vector<std::unique_ptr<Communicator>>>(*std::move(made));
  return [all](const CommOptions& options) { return std::move((*all)[options.rank]); };
}

std::unique_ptr<CommHarness> InProcess() {
  return std::make_unique<ThreadHarness>([](int size, const std::vector<Channel>& channels) {
    return TakeFrom(MakeInProcessCommunicators(size, channels));
  });
}

std::unique_ptr<CommHarness> FaultInjecting() {
  return std::make_unique<ThreadHarness>([](int size, const std::vector<Channel>& channels) {
    auto made = MakeInProcessCommunicators(size, channels);
    if (made.ok()) {
      const Fault late{.kind = Fault::Kind::kDelay, .operation = 1, .delay = absl::Milliseconds(20)};
      for (auto& comm : *made) comm = std::make_unique<FaultInjectingCommunicator>(std::move(comm), late);
    }
    return TakeFrom(std::move(made));
  });
}

std::unique_ptr<CommHarness> GlooThreads() {
  return std::make_unique<ThreadHarness>([](int size, const std::vector<Channel>& channels) {
    auto rendezvous = std::make_shared<InProcessRendezvous>();
    return [rendezvous](const CommOptions& options) { return Connect(options, *rendezvous); };
  });
}

// Ranks are processes: this program again, told by its environment which rank it is, running the same test.
class ProcessHarness final : public CommHarness {
 public:
  explicit ProcessHarness(c10::Device device) : device_(device) {}

  void Run(int size, const std::vector<Channel>& channels, const RankBody& body, int vanishing) override {
    if (IsRankProcess()) {
      RunRank(std::atoi(std::getenv(kRankVariable)), size, channels, body);
    } else {
      RunChildren(size, vanishing);
    }
  }

 private:
  void RunRank(int rank, int size, const std::vector<Channel>& channels, const RankBody& body) {
    alarm(kRankLifetimeSeconds);  // A rank that hangs fails its own test alone.
    const int socket = std::atoi(std::getenv(kSocketVariable));
    ProcessRendezvous rendezvous(socket, "comm/");
    ProcessRendezvous side(socket, "side/");
    auto comm = Connect(MakeOptions(rank, size, channels, device_), rendezvous);
    ASSERT_TRUE(comm.ok()) << "rank " << rank << ": " << comm.status();
    RankContext context{rank, size, device_, *std::move(comm), &side, true};
    body(context);
  }

  void RunChildren(int size, int vanishing) {
    InProcessRendezvous rendezvous;
    std::vector<pid_t> children;
    std::vector<std::thread> servers;
    for (int rank = 0; rank < size; ++rank) {
      int ends[2];
      ASSERT_EQ(0, socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, ends));
      children.push_back(Spawn(rank, ends[1]));
      close(ends[1]);
      servers.emplace_back([&rendezvous, socket = ends[0]] {
        ServeRendezvous(socket, rendezvous);
        close(socket);
      });
    }
    for (int rank = 0; rank < size; ++rank) ExpectEnd(rank, children[rank], rank == vanishing);
    rendezvous.Abort(absl::CancelledError("all ranks have ended"));
    for (std::thread& server : servers) server.join();
  }

  static pid_t Spawn(int rank, int socket) {
    const testing::TestInfo* test = testing::UnitTest::GetInstance()->current_test_info();
    const std::string filter = absl::StrCat("--gtest_filter=", test->test_suite_name(), ".", test->name());
    const std::string rank_variable = absl::StrCat(kRankVariable, "=", rank);
    constexpr int kChildSocket = 100;  // Any number that is not in use.
    const std::string socket_variable = absl::StrCat(kSocketVariable, "=", kChildSocket);
    std::vector<const char*> variables;
    for (char** entry = environ; *entry != nullptr; ++entry) variables.push_back(*entry);
    variables.insert(variables.end(), {rank_variable.c_str(), socket_variable.c_str(), nullptr});
    const char* arguments[] = {"comm_conformance_test", filter.c_str(), "--gtest_brief=1", nullptr};
    posix_spawn_file_actions_t actions;
    posix_spawn_file_actions_init(&actions);
    posix_spawn_file_actions_adddup2(&actions, socket, kChildSocket);
    pid_t pid = -1;
    EXPECT_EQ(0, posix_spawn(&pid, "/proc/self/exe", &actions, nullptr, const_cast<char**>(arguments),
                             const_cast<char**>(variables.data())));
    posix_spawn_file_actions_destroy(&actions);
    return pid;
  }

  static void ExpectEnd(int rank, pid_t child, bool killed) {
    int status = 0;
    ASSERT_EQ(child, waitpid(child, &status, 0));
    if (killed) {
      EXPECT_TRUE(WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL) << "rank " << rank << " ended with " << status;
    } else {
      EXPECT_TRUE(WIFEXITED(status) && WEXITSTATUS(status) == 0) << "rank " << rank << " ended with " << status;
    }
  }

  const c10::Device device_;
};

}  // namespace

void RankContext::Barrier(const std::string& name) const {
  ASSERT_TRUE(side->Put(absl::StrCat(name, "/", rank), "here").ok());
  for (int other = 0; other < size; ++other) {
    const auto there = side->Get(absl::StrCat(name, "/", other), kJoinTimeout);
    ASSERT_TRUE(there.ok()) << "rank " << rank << ": " << there.status();
  }
}

void RankContext::Vanish() {
  if (is_process) raise(SIGKILL);
  comm.reset();
}

std::vector<HarnessCase> AllHarnesses() {
  std::vector<HarnessCase> cases = {
      {"InProcess", InProcess},
      {"FaultInjecting", FaultInjecting},
      {"GlooThreads", GlooThreads},
      {"GlooProcesses", [] { return std::make_unique<ProcessHarness>(c10::kCPU); }},
  };
  if (at::hasCUDA()) {
    cases.push_back({"NcclProcesses", [] { return std::make_unique<ProcessHarness>(c10::Device(c10::kCUDA, 0)); }});
  }
  return cases;
}

bool IsRankProcess() { return std::getenv(kRankVariable) != nullptr; }

}  // namespace gpipe::worker
