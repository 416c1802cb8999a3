#include "common/net/accepting_port.h"

#include <fcntl.h>
#include <netdb.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <sys/eventfd.h>
#include <sys/socket.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/strings/strip.h"
#include "common/address.h"
#include "common/descriptor_limit.h"
#include "common/logging.h"
#include "common/net/connection_times.h"
#include "common/status_macros.h"
#include "common/string_view.h"
#include "spdlog/spdlog.h"

namespace gpipe {
namespace {

// Between two looks at how many descriptors there are, when there are too many; and before the next try when the system
// lacks something else.
constexpr absl::Duration kPause = absl::Milliseconds(100);

int OpenSpare() { return open("/dev/null", O_RDONLY | O_CLOEXEC); }

void CloseIfOpen(int& descriptor) {
  if (descriptor >= 0) close(std::exchange(descriptor, -1));
}

size_t DefaultLimit() { return std::min(MostDescriptors() / 4 * 3, AcceptingPort::kMostDescriptors); }

void SetOption(int socket, int level, int name, int value) { setsockopt(socket, level, name, &value, sizeof value); }

void SetPort(sockaddr& address, int port) {
  if (address.sa_family == AF_INET) reinterpret_cast<sockaddr_in&>(address).sin_port = htons(port);
  if (address.sa_family == AF_INET6) reinterpret_cast<sockaddr_in6&>(address).sin6_port = htons(port);
}

int PortBound(int socket) {
  sockaddr_storage address{};
  socklen_t size = sizeof address;
  if (getsockname(socket, reinterpret_cast<sockaddr*>(&address), &size) != 0) return 0;
  return ntohs(address.ss_family == AF_INET6 ? reinterpret_cast<sockaddr_in6&>(address).sin6_port
                                             : reinterpret_cast<sockaddr_in&>(address).sin_port);
}

absl::Status CannotListen(const std::string& where, int error) {
  return absl::UnavailableError(absl::StrCat("cannot listen on ", where, ": ", strerror(error)));
}

struct FreeAddresses {
  void operator()(addrinfo* list) const { freeaddrinfo(list); }
};
using Addresses = std::unique_ptr<addrinfo, FreeAddresses>;

// What `host` stands for, to be listened at.
absl::StatusOr<Addresses> Resolve(const std::string& host, int port) {
  addrinfo hints{};
  hints.ai_socktype = SOCK_STREAM;
  hints.ai_flags = AI_PASSIVE | AI_NUMERICSERV;
  addrinfo* found = nullptr;
  const int error = getaddrinfo(host.c_str(), std::to_string(port).c_str(), &hints, &found);
  if (error != 0) return absl::UnavailableError(absl::StrCat("cannot listen on ", host, ": ", gai_strerror(error)));
  return Addresses(found);
}

// Bound to the address, with the options that connections inherit. -1, with errno.
int BoundSocket(const addrinfo& address) {
  const int socket = ::socket(address.ai_family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
  if (socket < 0) return -1;
  SetOption(socket, SOL_SOCKET, SO_REUSEADDR, 1);  // Two that listen still cannot share an address.
  SetOption(socket, IPPROTO_TCP, TCP_NODELAY, 1);
  SetOption(socket, IPPROTO_TCP, TCP_USER_TIMEOUT, kKeepaliveTimeoutMillis);
  if (address.ai_family == AF_INET6) SetOption(socket, IPPROTO_IPV6, IPV6_V6ONLY, 0);
  if (bind(socket, address.ai_addr, address.ai_addrlen) == 0) return socket;
  const int error = errno;
  close(socket);
  errno = error;
  return -1;
}

}  // namespace

AcceptingPort::AcceptingPort(const Limits& limits, Take take, OnRefused on_refused)
    : most_descriptors_(limits.most_descriptors > 0 ? limits.most_descriptors : DefaultLimit()),
      take_(std::move(take)),
      on_refused_(std::move(on_refused)) {}

absl::StatusOr<std::unique_ptr<AcceptingPort>> AcceptingPort::Bind(const std::string& listen, const Limits& limits,
                                                                   Take take, OnRefused on_refused) {
  std::unique_ptr<AcceptingPort> port(new AcceptingPort(limits, std::move(take), std::move(on_refused)));
  GPIPE_RETURN_IF_ERROR(port->BindAll(listen));
  port->stop_ = eventfd(0, EFD_CLOEXEC);
  port->spare_ = OpenSpare();
  if (port->stop_ < 0 || port->spare_ < 0) return CannotListen(listen, errno);
  return port;
}

// `::` are all addresses of both kinds; to a system without IPv6 it is none.
absl::Status AcceptingPort::BindAll(const std::string& listen) {
  const std::string_view written = HostOf(listen);
  const std::string host(absl::StripSuffix(absl::StripPrefix(AbslView(written), "["), "]"));
  const int port = PortOf(listen).value_or(0);
  if (host != "0.0.0.0" && host != "::") return BindTo(host, port);
  const absl::Status bound = BindTo("::", port);
  return bound.ok() ? bound : BindTo("0.0.0.0", port);
}

// A name may have several addresses, of which some may not be there; but none may be another's.
absl::Status AcceptingPort::BindTo(const std::string& host, int port) {
  GPIPE_ASSIGN_OR_RETURN(const Addresses addresses, Resolve(host, port));
  int error = 0;
  for (const addrinfo* address = addresses.get(); address != nullptr; address = address->ai_next) {
    if (port == 0) SetPort(*address->ai_addr, port_);  // All of them the same.
    if (const int socket = BoundSocket(*address); socket >= 0) {
      GPIPE_RETURN_IF_ERROR(Listen(socket));
      continue;
    }
    error = errno;
    if (error == EADDRINUSE && port != 0) return CannotListen(absl::StrCat(host, ":", port), error);
  }
  return listeners_.empty() ? CannotListen(absl::StrCat(host, ":", port), error) : absl::OkStatus();
}

absl::Status AcceptingPort::Listen(int socket) {
  listeners_.push_back(socket);
  if (listen(socket, SOMAXCONN) != 0) return CannotListen("a port", errno);
  port_ = PortBound(socket);
  return absl::OkStatus();
}

AcceptingPort::~AcceptingPort() {
  Stop();
  CloseIfOpen(stop_);
  CloseIfOpen(spare_);
}

void AcceptingPort::Start() {
  thread_ = std::thread([this] {
    SetThreadName("grpc-accept");
    Run();
  });
}

void AcceptingPort::Stop() {
  if (thread_.joinable()) {
    eventfd_write(stop_, 1);
    thread_.join();
  }
  for (int& listener : listeners_) CloseIfOpen(listener);
  listeners_.clear();
}

void AcceptingPort::Run() {
  while (AwaitConnections()) {
    for (const int listener : listeners_) AcceptFrom(listener);
  }
}

bool AcceptingPort::AwaitConnections() {
  std::vector<pollfd> watched = {{.fd = stop_, .events = POLLIN, .revents = 0}};
  for (const int listener : listeners_) watched.push_back({.fd = listener, .events = POLLIN, .revents = 0});
  while (poll(watched.data(), watched.size(), -1) < 0 && errno == EINTR) {
  }
  return watched[0].revents == 0;
}

void AcceptingPort::AcceptFrom(int listener) {
  const int connection = accept4(listener, nullptr, nullptr, SOCK_NONBLOCK | SOCK_CLOEXEC);
  if (connection < 0) return OnAcceptFailed(listener, errno);
  if (!HasRoom()) return Refuse(connection);
  take_(listener, connection);
}

// What was wrong with one connection is nothing to the next one.
void AcceptingPort::OnAcceptFailed(int listener, int error) {
  const bool is_full = error == EMFILE || error == ENFILE;
  if (is_full) {
    CloseIfOpen(spare_);
    const int connection = accept4(listener, nullptr, nullptr, SOCK_NONBLOCK | SOCK_CLOEXEC);
    if (connection >= 0) Refuse(connection);
    spare_ = OpenSpare();
  }
  const bool is_lasting = error != EAGAIN && error != EINTR && error != ECONNABORTED;
  if (!is_lasting || (is_full && spare_ >= 0)) return;
  pollfd stop = {.fd = stop_, .events = POLLIN, .revents = 0};
  poll(&stop, 1, static_cast<int>(absl::ToInt64Milliseconds(kPause)));
}

void AcceptingPort::Refuse(int connection) {
  close(connection);
  if (on_refused_) on_refused_();
  if (const auto left_out = lines_.Pass()) {
    spdlog::warn("a connection is refused: too many files and connections are open{}",
                 *left_out == 0 ? "" : absl::StrCat(" (and ", *left_out, " more)"));
  }
}

bool AcceptingPort::HasRoom() {
  if (room_ == 0) {
    const absl::Time now = clock_.Now();
    if (now - looked_ < kPause) return false;
    looked_ = now;
    room_ = most_descriptors_ - std::min(most_descriptors_, OpenDescriptors().value_or(most_descriptors_));
  }
  if (room_ == 0) return false;
  --room_;
  return true;
}

}  // namespace gpipe
