#ifndef GPIPE_COMMON_NET_ACCEPTING_PORT_H_
#define GPIPE_COMMON_NET_ACCEPTING_PORT_H_

#include <cstddef>
#include <functional>
#include <memory>
#include <string>
#include <thread>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "common/clock.h"
#include "common/log_limiter.h"

namespace gpipe {

// Listens, and hands connections to a server: gRPC's own listener knows no limit on them, and is deaf for ever after
// the first connection for which the process has no descriptor left. A connection beyond the limit is closed at once.
//
// The thread that made it starts and stops it.
class AcceptingPort {
 public:
  struct Limits {
    // Files and connections that the process may have open when a connection is taken; beyond, it is not. 0: three
    // quarters of what the system lets it have, at most kMostDescriptors, so that the rest is left for files.
    size_t most_descriptors = 0;
  };
  static constexpr size_t kMostDescriptors = 32'768;

  // Takes over the connection, which does not block. Called by the port's thread.
  using Take = std::function<void(int listener, int connection)>;
  // A connection was closed because there are too many. Called by the port's thread.
  using OnRefused = std::function<void()>;

  // Binds HOST:PORT, where port 0 lets the kernel choose, and 0.0.0.0 and [::] are all addresses of both kinds.
  // Connections wait until Start. UNAVAILABLE: it cannot be bound.
  static absl::StatusOr<std::unique_ptr<AcceptingPort>> Bind(const std::string& listen, const Limits& limits, Take take,
                                                             OnRefused on_refused);
  // As Stop.
  ~AcceptingPort();
  AcceptingPort(const AcceptingPort&) = delete;
  AcceptingPort& operator=(const AcceptingPort&) = delete;

  int port() const { return port_; }

  void Start();
  // Takes no more connections, and closes those that wait. Again: nothing.
  void Stop();

 private:
  AcceptingPort(const Limits& limits, Take take, OnRefused on_refused);
  absl::Status BindAll(const std::string& listen);
  absl::Status BindTo(const std::string& host, int port);
  absl::Status Listen(int socket);
  void Run();
  // Whether it is to go on.
  bool AwaitConnections();
  void AcceptFrom(int listener);
  void OnAcceptFailed(int listener, int error);
  void Refuse(int connection);
  bool HasRoom();

  const size_t most_descriptors_;
  const Take take_;
  const OnRefused on_refused_;
  int port_ = 0;
  std::vector<int> listeners_;
  int stop_ = -1;   // An eventfd.
  int spare_ = -1;  // A descriptor to let go of, so that a connection can be closed when there is none left.
  std::thread thread_;

  // Of the thread.
  const SteadyClock clock_;
  size_t room_ = 0;  // Connections that can be taken without looking at how many descriptors there are.
  absl::Time looked_ = absl::InfinitePast();
  LogLimiter lines_{1};
};

}  // namespace gpipe

#endif  // GPIPE_COMMON_NET_ACCEPTING_PORT_H_
