// Connections to a port that knows a limit, and that goes on when the process has had no descriptor left.

#include "common/net/accepting_port.h"

#include <arpa/inet.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <poll.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <unistd.h>

#include <string>
#include <utility>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/strings/str_cat.h"
#include "absl/synchronization/mutex.h"
#include "absl/time/clock.h"
#include "common/descriptor_limit.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"

namespace gpipe {
namespace {

// What the port's thread hands on.
class Descriptors {
 public:
  void Add(int descriptor) {
    absl::MutexLock lock(&mutex_);
    list_.push_back(descriptor);
  }
  void Await(size_t count) {
    absl::MutexLock lock(&mutex_);
    const auto reached = [this, count]() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_) { return list_.size() >= count; };
    EXPECT_TRUE(mutex_.AwaitWithTimeout(absl::Condition(&reached), absl::Seconds(20))) << list_.size();
  }
  void CloseAll() {
    absl::MutexLock lock(&mutex_);
    for (const int descriptor : list_) close(descriptor);
    list_.clear();
  }

 private:
  absl::Mutex mutex_;
  std::vector<int> list_ ABSL_GUARDED_BY(mutex_);
};

class AcceptingPortTest : public testing::Test {
 protected:
  ~AcceptingPortTest() override {
    if (port_ != nullptr) port_->Stop();
    for (const int descriptor : clients_) close(descriptor);
    taken_.CloseAll();
  }

  void Listen(const AcceptingPort::Limits& limits, const std::string& listen = "127.0.0.1:0") {
    auto port = AcceptingPort::Bind(
        listen, limits, [this](int, int connection) { taken_.Add(connection); }, [this] { refused_.Add(-1); });
    ASSERT_TRUE(port.ok()) << port.status();
    port_ = *std::move(port);
    port_->Start();
  }

  // Whether the client was connected; it stays so.
  bool Connect() {
    const int client = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    EXPECT_GE(client, 0);
    clients_.push_back(client);
    sockaddr_in address{};
    address.sin_family = AF_INET;
    address.sin_port = htons(port_->port());
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    return connect(client, reinterpret_cast<sockaddr*>(&address), sizeof address) == 0;
  }
  // Whether the last client's connection is closed by the other side, soon.
  bool IsClosed() const {
    pollfd client = {.fd = clients_.back(), .events = POLLIN, .revents = 0};
    return poll(&client, 1, 500) > 0;
  }
  void Disconnect() {
    close(clients_.back());
    clients_.pop_back();
  }

  void AwaitTaken(size_t count) { taken_.Await(count); }
  void AwaitRefused(size_t count) { refused_.Await(count); }
  void CloseTaken() { taken_.CloseAll(); }

  std::unique_ptr<AcceptingPort> port_;

  std::vector<int> clients_;

 private:
  Descriptors taken_, refused_;
};

TEST_F(AcceptingPortTest, HandsConnectionsOn) {
  Listen({});
  ASSERT_TRUE(Connect());
  ASSERT_TRUE(Connect());
  AwaitTaken(2);
}

TEST_F(AcceptingPortTest, ClosesThoseBeyondItsLimitUntilThereIsRoom) {
  const size_t open = OpenDescriptors().value();
  Listen({.most_descriptors = open + 10});
  for (int i = 0; i < 10; ++i) ASSERT_TRUE(Connect());
  AwaitRefused(1);
  EXPECT_TRUE(IsClosed());
  CloseTaken();
  while (!clients_.empty()) Disconnect();  // They are of this process, too.
  const absl::Time patience = absl::Now() + absl::Seconds(20);
  while (Connect() && IsClosed() && absl::Now() < patience) Disconnect();
  AwaitTaken(1);
}

// Lets the process have no more descriptors than it has, for as long as it lives.
class NoDescriptorLeft {
 public:
  NoDescriptorLeft() {
    getrlimit(RLIMIT_NOFILE, &before_);
    const int next = open("/dev/null", O_RDONLY | O_CLOEXEC);
    close(next);
    Set(next);
  }
  ~NoDescriptorLeft() { Set(before_.rlim_cur); }
  void Set(rlim_t most) const {
    const rlimit limit = {.rlim_cur = most, .rlim_max = before_.rlim_max};
    EXPECT_EQ(setrlimit(RLIMIT_NOFILE, &limit), 0);
  }

 private:
  rlimit before_{};
};

TEST_F(AcceptingPortTest, GoesOnAfterTheLastDescriptorWasTaken) {
  Listen({.most_descriptors = 1'000'000});
  {
    const int kept = open("/dev/null", O_RDONLY | O_CLOEXEC);
    const NoDescriptorLeft none;
    close(kept);  // For the client.
    ASSERT_TRUE(Connect());
    AwaitRefused(1);
    EXPECT_TRUE(IsClosed());
  }
  ASSERT_TRUE(Connect());
  AwaitTaken(1);
}

TEST_F(AcceptingPortTest, IsNobodyElses) {
  Listen({});
  const auto second = AcceptingPort::Bind(absl::StrCat("127.0.0.1:", port_->port()), {}, nullptr, nullptr);
  EXPECT_TRUE(absl::IsUnavailable(second.status())) << second.status();
  EXPECT_THAT(std::string(second.status().message()), testing::HasSubstr("in use"));
  EXPECT_TRUE(absl::IsUnavailable(AcceptingPort::Bind("no.such.host.invalid:0", {}, nullptr, nullptr).status()));
}

TEST_F(AcceptingPortTest, ListensEverywhereAndByName) {
  for (const char* listen : {"0.0.0.0:0", "[::]:0", "localhost:0"}) {
    Listen({}, listen);
    EXPECT_TRUE(Connect()) << listen;
    AwaitTaken(1);
    port_->Stop();
    EXPECT_FALSE(Connect()) << listen << " after its end";
    CloseTaken();
  }
}

}  // namespace
}  // namespace gpipe
