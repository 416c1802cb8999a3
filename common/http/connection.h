#ifndef GPIPE_COMMON_HTTP_CONNECTION_H_
#define GPIPE_COMMON_HTTP_CONNECTION_H_

#include <openssl/ssl.h>
#include <sys/types.h>

#include <array>
#include <chrono>
#include <cstddef>
#include <memory>

#include "absl/time/time.h"

namespace gpipe {

// One accepted connection, plain or TLS, with bounds on how long and how much a client may take: who trickles a
// request, sends headers without end, or does not read, is cut off. Used by one thread; but see Wake.
class Connection {
 public:
  struct Limits {
    absl::Duration timeout;  // For a handshake, for a request to arrive, and for a part of an answer to be taken.
    size_t request_bytes;    // Of a request, with all of its headers.
  };

  // Takes over the socket. `context` may be null: plain text.
  Connection(int socket, SSL_CTX* context, const Limits& limits);
  ~Connection();
  Connection(const Connection&) = delete;
  Connection& operator=(const Connection&) = delete;

  // With TLS, before anything else. False: there is nobody to talk to.
  bool Handshake();
  // Waits for the first byte of a request. False: there will be none, or not within `patience`.
  bool AwaitRequest(absl::Duration patience);

  // Bytes read or written, at least one; 0: the end; -1: an error, or beyond a limit.
  ssize_t Read(char* data, size_t size);
  ssize_t Write(const char* data, size_t size);
  // Whether the client still takes something.
  bool IsWritable() const;

  int socket() const { return socket_; }

  // Lets no more be read, and wakes who waits for that. Any thread, while the connection is there.
  static void Wake(int socket);

 private:
  using Deadline = std::chrono::steady_clock::time_point;
  struct FreeSsl {
    void operator()(SSL* ssl) const { SSL_free(ssl); }
  };

  Deadline After(absl::Duration duration) const;
  // Waits until the socket is readable or writable (POLLIN, POLLOUT).
  bool Await(short events, Deadline deadline) const;
  // Waits for what the TLS call that returned `result` wants; false: it has failed.
  bool AwaitTls(int result, Deadline deadline) const;
  ssize_t Fill();
  ssize_t ReadSome(char* data, size_t size);

  const int socket_;
  const std::unique_ptr<SSL, FreeSsl> ssl_;
  const Limits limits_;
  Deadline request_deadline_;
  size_t request_left_ = 0;  // Bytes.
  std::array<char, 4096> buffer_;
  size_t begin_ = 0, end_ = 0;  // What of it is not taken yet.
};

}  // namespace gpipe

#endif  // GPIPE_COMMON_HTTP_CONNECTION_H_
