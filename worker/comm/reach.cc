#include "worker/comm/reach.h"

#include <fcntl.h>
#include <netdb.h>
#include <poll.h>
#include <sys/socket.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <cstring>
#include <memory>
#include <utility>
#include <vector>

#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "absl/time/clock.h"
#include "common/status_macros.h"

namespace gpipe::worker {
namespace {

constexpr absl::Duration kLookEvery = absl::Milliseconds(200);
constexpr char kTimedOut[] = "no answer";

using Addresses = std::unique_ptr<addrinfo, decltype(&freeaddrinfo)>;

absl::StatusOr<Addresses> Resolve(const std::string& host, const char* port, int flags) {
  addrinfo hints = {};
  hints.ai_socktype = SOCK_STREAM;
  hints.ai_flags = flags;
  addrinfo* first = nullptr;
  const int error = getaddrinfo(host.c_str(), port, &hints, &first);
  if (error != 0) return absl::FailedPreconditionError(gai_strerror(error));
  return Addresses(first, freeaddrinfo);
}

std::string EndpointOf(int fd) {
  sockaddr_storage address = {};
  socklen_t size = sizeof(address);
  std::array<char, NI_MAXHOST> host = {};
  std::array<char, NI_MAXSERV> port = {};
  const auto* plain = reinterpret_cast<const sockaddr*>(&address);
  if (getsockname(fd, reinterpret_cast<sockaddr*>(&address), &size) != 0 ||
      getnameinfo(plain, size, host.data(), host.size(), port.data(), port.size(), NI_NUMERICHOST | NI_NUMERICSERV)) {
    return "";
  }
  return absl::StrCat(host.data(), " ", port.data());
}

// -1 and errno, when it cannot.
int ListenAt(const addrinfo& address, int backlog) {
  const int fd = socket(address.ai_family, SOCK_STREAM | SOCK_CLOEXEC, 0);
  if (fd < 0) return -1;
  if (bind(fd, address.ai_addr, address.ai_addrlen) == 0 && listen(fd, backlog) == 0) return fd;
  const int error = errno;
  close(fd);
  errno = error;
  return -1;
}

// One connection that is being tried.
class Try {
 public:
  Try(int rank, const std::string& endpoint) : rank_(rank) { Begin(endpoint); }
  ~Try() {
    if (fd_ >= 0) close(fd_);
  }
  Try(const Try&) = delete;
  Try& operator=(const Try&) = delete;

  // Once the socket has something to say.
  void Look() {
    int error = 0;
    socklen_t size = sizeof(error);
    if (getsockopt(fd_, SOL_SOCKET, SO_ERROR, &error, &size) != 0) error = errno;
    error == 0 ? Succeed() : Fail(error);
  }

  int rank() const { return rank_; }
  int fd() const { return fd_; }
  bool done() const { return done_; }
  // Empty when it is connected, or not known yet.
  const std::string& problem() const { return problem_; }

 private:
  void Begin(const std::string& endpoint) {
    const std::pair<std::string, std::string> parts = absl::StrSplit(endpoint, absl::MaxSplits(' ', 1));
    absl::StatusOr<Addresses> found = Resolve(parts.first, parts.second.c_str(), AI_NUMERICHOST | AI_NUMERICSERV);
    if (!found.ok()) return Fail(EINVAL);
    const addrinfo& address = **found;
    fd_ = socket(address.ai_family, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    if (fd_ < 0) return Fail(errno);
    if (connect(fd_, address.ai_addr, address.ai_addrlen) == 0) return Succeed();
    if (errno != EINPROGRESS) Fail(errno);
  }
  void Succeed() { done_ = true; }
  void Fail(int error) {
    done_ = true;
    problem_ = std::strerror(error);
  }

  const int rank_;
  int fd_ = -1;
  bool done_ = false;
  std::string problem_;
};

using Tries = std::vector<std::unique_ptr<Try>>;

// Waits for news of those that are not done. False: all are.
bool PollOnce(const Tries& tries, absl::Duration timeout) {
  std::vector<pollfd> polled;
  std::vector<Try*> waiting;
  for (const auto& one : tries) {
    if (one->done()) continue;
    polled.push_back({.fd = one->fd(), .events = POLLOUT, .revents = 0});
    waiting.push_back(one.get());
  }
  if (waiting.empty()) return false;
  poll(polled.data(), polled.size(), static_cast<int>(absl::ToInt64Milliseconds(timeout)));
  for (size_t i = 0; i < waiting.size(); ++i) {
    if (polled[i].revents != 0) waiting[i]->Look();
  }
  return true;
}

}  // namespace

absl::StatusOr<ReachListener> ReachListener::Create(const std::string& host, int peers) {
  absl::StatusOr<Addresses> addresses = Resolve(host, "0", AI_PASSIVE);
  if (!addresses.ok()) return addresses.status();
  int error = EADDRNOTAVAIL;
  for (const addrinfo* address = addresses->get(); address != nullptr; address = address->ai_next) {
    ReachListener listener;
    listener.fd_ = ListenAt(*address, peers);
    if (listener.fd_ >= 0) {
      listener.endpoint_ = EndpointOf(listener.fd_);
      return listener;
    }
    error = errno;
  }
  return absl::FailedPreconditionError(std::strerror(error));
}

ReachListener::ReachListener(ReachListener&& other) noexcept
    : fd_(std::exchange(other.fd_, -1)), endpoint_(std::exchange(other.endpoint_, "")) {}

ReachListener& ReachListener::operator=(ReachListener&& other) noexcept {
  std::swap(fd_, other.fd_);
  std::swap(endpoint_, other.endpoint_);
  return *this;
}

ReachListener::~ReachListener() {
  if (fd_ >= 0) close(fd_);
}

std::string DataAddressProblem(const std::string& host) {
  const absl::Status status = ReachListener::Create(host, 1).status();
  if (status.ok()) return "";
  return absl::StrCat("cannot use data address '", host, "': ", status.message());
}

absl::StatusOr<std::map<int, std::string>> FindUnreachable(const std::map<int, std::string>& endpoints,
                                                           absl::Duration patience,
                                                           const std::function<absl::Status()>& keep_waiting) {
  const absl::Time deadline = absl::Now() + patience;
  Tries tries;
  for (const auto& [rank, endpoint] : endpoints) {
    if (!endpoint.empty()) tries.push_back(std::make_unique<Try>(rank, endpoint));
  }
  while (PollOnce(tries, std::clamp(deadline - absl::Now(), absl::ZeroDuration(), kLookEvery))) {
    if (absl::Now() >= deadline) break;
    GPIPE_RETURN_IF_ERROR(keep_waiting());
  }
  std::map<int, std::string> unreachable;
  for (const auto& one : tries) {
    if (one->done() && one->problem().empty()) continue;
    unreachable[one->rank()] = one->done() ? one->problem() : kTimedOut;
  }
  return unreachable;
}

}  // namespace gpipe::worker
