#include "worker/comm/connect.h"

#include <algorithm>
#include <map>
#include <string>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "absl/time/clock.h"
#include "common/status_macros.h"
#include "worker/comm/gloo_communicator.h"
#include "worker/comm/nccl_communicator.h"
#include "worker/comm/nccl_environment.h"
#include "worker/comm/reach.h"
#include "worker/comm/solo_communicator.h"
#include "worker/comm/transfer_check.h"

namespace gpipe::worker {
namespace {

// What a worker tells the others when it joins: its kind of device, and which one if two can have the same.
constexpr char kCpu[] = "cpu";

std::string JoinKey(int rank) { return absl::StrCat("join/", rank); }
std::string ConnectedKey(int rank) { return absl::StrCat("connected/", rank); }

absl::Status CheckOptions(const CommOptions& options) {
  if (options.size < 1 || options.rank < 0 || options.rank >= options.size) {
    return absl::InvalidArgumentError(absl::StrCat("rank ", options.rank, " of ", options.size, " workers"));
  }
  return CheckChannels(options.channels, options.size);
}

absl::StatusOr<std::string> DeviceIdentity(const c10::Device& device) {
  if (device.is_cpu()) return std::string(kCpu);
  if (device.is_cuda()) return GpuIdentity(device.index());
  return absl::InvalidArgumentError(absl::StrCat("no communication between devices like ", device.str()));
}

absl::StatusOr<std::string> GetFromWorker(Rendezvous& rendezvous, const std::string& key, int rank,
                                          absl::Time deadline) {
  const absl::Duration left = std::max(deadline - absl::Now(), absl::ZeroDuration());
  absl::StatusOr<std::string> value = rendezvous.Get(key, left);
  if (!absl::IsDeadlineExceeded(value.status())) return value;
  return absl::DeadlineExceededError(absl::StrCat("worker ", rank, " did not join in time"));
}

// Where peers try whether they reach this worker. NCCL may use another address than the one that was given: then
// nothing is tried.
absl::StatusOr<ReachListener> Listen(const CommOptions& options) {
  if (options.data_address.empty() || (options.device.is_cuda() && !NcclUsesAddress(options.data_address))) {
    return ReachListener();
  }
  absl::StatusOr<ReachListener> listener = ReachListener::Create(options.data_address, options.size);
  if (listener.ok()) return listener;
  const std::string why =
      absl::StrCat("cannot use data address '", options.data_address, "': ", listener.status().message());
  return WithUnreachablePeer(absl::FailedPreconditionError(why), options.rank);
}

struct Joined {
  bool shares_gpu = false;               // Another worker uses this worker's GPU.
  std::map<int, std::string> endpoints;  // Of the others, by rank.
};

// Waits until all workers have joined, so that a missing one is named.
absl::StatusOr<Joined> Join(const CommOptions& options, const std::string& endpoint, Rendezvous& rendezvous,
                            absl::Time deadline) {
  GPIPE_ASSIGN_OR_RETURN(const std::string mine, DeviceIdentity(options.device));
  GPIPE_RETURN_IF_ERROR(rendezvous.Put(JoinKey(options.rank), absl::StrCat(mine, "\n", endpoint)));
  Joined joined;
  for (int rank = 0; rank < options.size; ++rank) {
    if (rank == options.rank) continue;
    GPIPE_ASSIGN_OR_RETURN(const std::string told, GetFromWorker(rendezvous, JoinKey(rank), rank, deadline));
    const std::pair<std::string, std::string> parts = absl::StrSplit(told, absl::MaxSplits('\n', 1));
    const std::string& theirs = parts.first;
    joined.endpoints[rank] = parts.second;
    if ((theirs == kCpu) != (mine == kCpu)) {
      return absl::FailedPreconditionError(absl::StrCat(
          "workers ", options.rank, " and ", rank, " cannot exchange tensors: one computes on a CPU, one on a GPU"));
    }
    joined.shares_gpu |= theirs != kCpu && theirs == mine;
  }
  return joined;
}

absl::StatusOr<std::unique_ptr<Communicator>> ConnectJoined(const CommOptions& options, Rendezvous& rendezvous,
                                                            bool shares_gpu, absl::Time deadline) {
  if (options.device.is_cpu()) return GlooCommunicator::Connect(options, rendezvous, deadline);
  PrepareNcclEnvironment(options.device.index(), shares_gpu, options.data_address);
  return NcclCommunicator::Connect(options, rendezvous, deadline, JoinKey(options.rank));
}

// A worker that is done at once must not leave while others still connect, who would take it for a failure.
absl::Status AwaitAllConnected(const CommOptions& options, Rendezvous& rendezvous, absl::Time deadline) {
  GPIPE_RETURN_IF_ERROR(rendezvous.Put(ConnectedKey(options.rank), ""));
  for (int rank = 0; rank < options.size; ++rank) {
    if (rank == options.rank) continue;
    GPIPE_RETURN_IF_ERROR(GetFromWorker(rendezvous, ConnectedKey(rank), rank, deadline).status());
  }
  return absl::OkStatus();
}

}  // namespace

absl::StatusOr<std::unique_ptr<Communicator>> Connect(const CommOptions& options, Rendezvous& rendezvous) {
  GPIPE_RETURN_IF_ERROR(CheckOptions(options));
  if (options.size == 1) return std::make_unique<SoloCommunicator>();
  const absl::Time deadline = absl::Now() + options.timeout;
  GPIPE_ASSIGN_OR_RETURN(ReachListener listener, Listen(options));
  GPIPE_ASSIGN_OR_RETURN(const Joined joined, Join(options, listener.endpoint(), rendezvous, deadline));
  GPIPE_RETURN_IF_ERROR(CheckReach(options.rank, options.size, joined.endpoints, rendezvous, deadline));
  listener = ReachListener();
  GPIPE_ASSIGN_OR_RETURN(std::unique_ptr<Communicator> communicator,
                         ConnectJoined(options, rendezvous, joined.shares_gpu, deadline));
  GPIPE_RETURN_IF_ERROR(AwaitAllConnected(options, rendezvous, deadline));
  return communicator;
}

}  // namespace gpipe::worker
