#ifndef GPIPE_WORKER_COMM_REACH_H_
#define GPIPE_WORKER_COMM_REACH_H_

#include <functional>
#include <map>
#include <optional>
#include <string>
#include <string_view>

#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "worker/comm/rendezvous.h"

namespace gpipe::worker {

// Whether the workers of an attempt reach each other at their data addresses, found out before Gloo or NCCL connect,
// which would wait for long, or say nothing of whom they wait for.

// Listens at a data address, on a port of the kernel's choice, so that peers can try. Who connects is kept by the
// kernel until this object goes; nobody talks. Movable.
class ReachListener {
 public:
  // Nobody listens.
  ReachListener() = default;
  // For so many peers. FAILED_PRECONDITION: this machine has no such address, or the name does not resolve.
  static absl::StatusOr<ReachListener> Create(const std::string& host, int peers);
  ReachListener(ReachListener&& other) noexcept;
  ReachListener& operator=(ReachListener&& other) noexcept;
  ~ReachListener();

  // What peers need: a numeric address and a port, `10.0.0.1 41234`. Empty: nobody listens.
  const std::string& endpoint() const { return endpoint_; }

 private:
  int fd_ = -1;
  std::string endpoint_;
};

// What is wrong with an address that a worker is to be reached at, before it is used; empty when nothing is.
std::string DataAddressProblem(const std::string& host);

// Connects with all endpoints at once and hangs up. By rank: why that worker could not be connected to within
// `patience`. One with an empty endpoint is not tried. `keep_waiting` is asked several times a second; a status that is
// not OK ends the wait.
absl::StatusOr<std::map<int, std::string>> FindUnreachable(const std::map<int, std::string>& endpoints,
                                                           absl::Duration patience,
                                                           const std::function<absl::Status()>& keep_waiting);

// Tries, and tells all others through `rendezvous` whom this worker could not reach, so that all of them know before
// any gives up. OK: everybody reaches everybody. UNAVAILABLE otherwise: with UnreachablePeer, where this worker is one
// of those who cannot reach somebody, without where others are. `endpoints` are those of the other ranks.
absl::Status CheckReach(int rank, int size, const std::map<int, std::string>& endpoints, Rendezvous& rendezvous,
                        absl::Time deadline);

// `status`, which says that the worker of that rank cannot be connected to; its own rank: that it cannot be by anybody.
absl::Status WithUnreachablePeer(absl::Status status, int rank);
std::optional<int> UnreachablePeer(const absl::Status& status);
absl::Status WithoutUnreachablePeer(absl::Status status);

}  // namespace gpipe::worker

#endif  // GPIPE_WORKER_COMM_REACH_H_
