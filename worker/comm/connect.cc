#include "worker/comm/connect.h"

#include <algorithm>
#include <string>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "common/status_macros.h"
#include "worker/comm/gloo_communicator.h"
#include "worker/comm/nccl_communicator.h"
#include "worker/comm/nccl_environment.h"
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

// Waits until all workers have joined, so that a missing one is named. True: another one uses this worker's GPU.
absl::StatusOr<bool> Join(const CommOptions& options, Rendezvous& rendezvous, absl::Time deadline) {
  GPIPE_ASSIGN_OR_RETURN(const std::string mine, DeviceIdentity(options.device));
  GPIPE_RETURN_IF_ERROR(rendezvous.Put(JoinKey(options.rank), mine));
  bool shares = false;
  for (int rank = 0; rank < options.size; ++rank) {
    if (rank == options.rank) continue;
    GPIPE_ASSIGN_OR_RETURN(const std::string theirs, GetFromWorker(rendezvous, JoinKey(rank), rank, deadline));
    if ((theirs == kCpu) != (mine == kCpu)) {
      return absl::FailedPreconditionError(absl::StrCat(
          "workers ", options.rank, " and ", rank, " cannot exchange tensors: one computes on a CPU, one on a GPU"));
    }
    shares = shares || (theirs != kCpu && theirs == mine);
  }
  return shares;
}

absl::StatusOr<std::unique_ptr<Communicator>> ConnectJoined(const CommOptions& options, Rendezvous& rendezvous,
                                                            bool shares_gpu, absl::Time deadline) {
  if (options.device.is_cpu()) return GlooCommunicator::Connect(options, rendezvous, deadline);
  PrepareNcclEnvironment(shares_gpu, options.data_address);
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
  GPIPE_ASSIGN_OR_RETURN(const bool shares_gpu, Join(options, rendezvous, deadline));
  GPIPE_ASSIGN_OR_RETURN(std::unique_ptr<Communicator> communicator,
                         ConnectJoined(options, rendezvous, shares_gpu, deadline));
  GPIPE_RETURN_IF_ERROR(AwaitAllConnected(options, rendezvous, deadline));
  return communicator;
}

}  // namespace gpipe::worker
