#include "common/http/connection.h"

#include <fcntl.h>
#include <openssl/err.h>
#include <poll.h>
#include <sys/socket.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <limits>

namespace gpipe {
namespace {

SSL* NewSsl(SSL_CTX* context, int socket) {
  SSL* ssl = context == nullptr ? nullptr : SSL_new(context);
  if (ssl != nullptr) SSL_set_fd(ssl, socket);
  return ssl;
}

int ToInt(size_t size) { return static_cast<int>(std::min<size_t>(size, std::numeric_limits<int>::max())); }

}  // namespace

Connection::Connection(int socket, SSL_CTX* context, const Limits& limits)
    : socket_(socket), ssl_(NewSsl(context, socket)), limits_(limits) {
  fcntl(socket_, F_SETFL, fcntl(socket_, F_GETFL) | O_NONBLOCK);
  if (ssl_ != nullptr) SSL_set_mode(ssl_.get(), SSL_MODE_ENABLE_PARTIAL_WRITE | SSL_MODE_ACCEPT_MOVING_WRITE_BUFFER);
}

Connection::~Connection() {
  if (ssl_ != nullptr && SSL_is_init_finished(ssl_.get())) SSL_shutdown(ssl_.get());
  ERR_clear_error();
  close(socket_);
}

Connection::Deadline Connection::After(absl::Duration duration) const {
  return std::chrono::steady_clock::now() + absl::ToChronoNanoseconds(duration);
}

bool Connection::Await(short events, Deadline deadline) const {
  while (true) {
    const auto left = std::chrono::ceil<std::chrono::milliseconds>(deadline - std::chrono::steady_clock::now());
    if (left.count() <= 0) return false;
    pollfd waited = {.fd = socket_, .events = events, .revents = 0};
    const int ready = poll(&waited, 1, static_cast<int>(std::min<int64_t>(left.count(), 3600'000)));
    if (ready > 0) return true;
    if (ready < 0 && errno != EINTR) return false;
  }
}

bool Connection::AwaitTls(int result, Deadline deadline) const {
  const int error = SSL_get_error(ssl_.get(), result);
  if (error == SSL_ERROR_WANT_READ) return Await(POLLIN, deadline);
  if (error == SSL_ERROR_WANT_WRITE) return Await(POLLOUT, deadline);
  ERR_clear_error();
  return false;
}

bool Connection::Handshake() {
  if (ssl_ == nullptr) return true;
  const Deadline deadline = After(limits_.timeout);
  while (true) {
    ERR_clear_error();
    const int done = SSL_accept(ssl_.get());
    if (done == 1) return true;
    if (!AwaitTls(done, deadline)) return false;
  }
}

bool Connection::AwaitRequest(absl::Duration patience) {
  request_deadline_ = After(patience);
  request_left_ = limits_.request_bytes;
  if (begin_ == end_ && Fill() <= 0) return false;
  request_deadline_ = After(limits_.timeout);
  return true;
}

ssize_t Connection::Read(char* data, size_t size) {
  if (begin_ == end_) {
    if (const ssize_t filled = Fill(); filled <= 0) return filled;
  }
  const size_t taken = std::min({size, end_ - begin_, request_left_});
  if (taken == 0) return -1;
  std::memcpy(data, buffer_.data() + begin_, taken);
  begin_ += taken;
  request_left_ -= taken;
  return static_cast<ssize_t>(taken);
}

ssize_t Connection::Fill() {
  begin_ = end_ = 0;
  const ssize_t got = ReadSome(buffer_.data(), buffer_.size());
  if (got > 0) end_ = static_cast<size_t>(got);
  return got;
}

ssize_t Connection::ReadSome(char* data, size_t size) {
  while (true) {
    if (ssl_ != nullptr) {
      ERR_clear_error();
      const int got = SSL_read(ssl_.get(), data, ToInt(size));
      if (got > 0) return got;
      if (SSL_get_error(ssl_.get(), got) == SSL_ERROR_ZERO_RETURN) return 0;
      if (!AwaitTls(got, request_deadline_)) return -1;
    } else {
      const ssize_t got = recv(socket_, data, size, 0);
      if (got >= 0) return got;
      if (errno != EAGAIN && errno != EINTR) return -1;
      if (!Await(POLLIN, request_deadline_)) return -1;
    }
  }
}

ssize_t Connection::Write(const char* data, size_t size) {
  const Deadline deadline = After(limits_.timeout);
  while (true) {
    if (ssl_ != nullptr) {
      ERR_clear_error();
      const int sent = SSL_write(ssl_.get(), data, ToInt(size));
      if (sent > 0) return sent;
      if (!AwaitTls(sent, deadline)) return -1;
    } else {
      const ssize_t sent = send(socket_, data, size, MSG_NOSIGNAL);
      if (sent >= 0) return sent;
      if (errno != EAGAIN && errno != EINTR) return -1;
      if (!Await(POLLOUT, deadline)) return -1;
    }
  }
}

bool Connection::IsWritable() const {
  pollfd waited = {.fd = socket_, .events = POLLOUT, .revents = 0};
  return Await(POLLOUT, After(limits_.timeout)) && poll(&waited, 1, 0) > 0 &&
         (waited.revents & (POLLERR | POLLHUP)) == 0;
}

void Connection::Wake(int socket) { shutdown(socket, SHUT_RD); }

}  // namespace gpipe
