#include "worker/comm/gloo_communicator.h"

#include <ATen/ATen.h>

#include <algorithm>
#include <csignal>
#include <optional>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "common/logging.h"
#include "common/status_macros.h"
#include "worker/comm/gloo_store.h"
#include "worker/comm/transfer_check.h"
#include "worker/torch_status.h"

namespace gpipe::worker {
namespace {

// More transfers than an engine begins at once; beyond it the engine waits for the starter, which waits for no peer.
constexpr size_t kMaxNotBegun = 256;

// When every worker has joined, connecting takes milliseconds; one that dies just then is not waited for longer.
constexpr absl::Duration kConnectTimeout = absl::Seconds(10);

using Device = std::shared_ptr<::gloo::transport::Device>;

// FAILED_PRECONDITION: this machine has no such address, which is nobody else's fault.
absl::StatusOr<Device> MakeDevice(const std::string& address) {
  absl::StatusOr<Device> device = CatchTorch([&]() -> absl::StatusOr<Device> {
    if (address.empty()) return c10d::ProcessGroupGloo::createDefaultDevice();
    return c10d::ProcessGroupGloo::createDeviceForHostname(address);
  });
  if (device.ok()) return device;
  return absl::FailedPreconditionError(
      absl::StrCat("cannot use data address '", address, "': ", device.status().message()));
}

// May throw.
c10::intrusive_ptr<c10d::ProcessGroupGloo> MakeGroup(const CommOptions& options, Device device,
                                                     const c10::intrusive_ptr<GlooStore>& store, absl::Time deadline) {
  const absl::Duration left = std::clamp(deadline - absl::Now(), absl::Milliseconds(1), kConnectTimeout);
  auto group_options = c10d::ProcessGroupGloo::Options::create(absl::ToChronoMilliseconds(left));
  group_options->threads = 0;  // They run c10d's collectives, which are not used.
  group_options->devices.push_back(std::move(device));
  return c10::make_intrusive<c10d::ProcessGroupGloo>(store, options.rank, options.size, std::move(group_options));
}

}  // namespace

absl::StatusOr<std::unique_ptr<Communicator>> GlooCommunicator::Connect(const CommOptions& options,
                                                                        Rendezvous& rendezvous, absl::Time deadline) {
  // Gloo writes to sockets whose other end may be closed, and leaves the signal to the program.
  std::signal(SIGPIPE, SIG_IGN);
  GPIPE_ASSIGN_OR_RETURN(Device device, MakeDevice(options.data_address));
  auto store = c10::make_intrusive<GlooStore>(&rendezvous, deadline);
  absl::StatusOr<std::unique_ptr<Communicator>> result =
      CatchTorch([&]() -> absl::StatusOr<std::unique_ptr<Communicator>> {
        return std::unique_ptr<Communicator>(
            new GlooCommunicator(options, MakeGroup(options, std::move(device), store, deadline)));
      });
  if (result.ok()) return result;
  GPIPE_RETURN_IF_ERROR(store->status());
  return absl::UnavailableError(absl::StrCat("cannot connect with the other workers from data address '",
                                             options.data_address, "': ", result.status().message()));
}

GlooCommunicator::GlooCommunicator(const CommOptions& options, c10::intrusive_ptr<c10d::ProcessGroupGloo> group)
    : rank_(options.rank),
      size_(options.size),
      channels_(options.channels),
      group_(std::move(group)),
      to_begin_(kMaxNotBegun),
      gone_(options.size, false),
      monitor_(group_.get(), rank_, size_, static_cast<int>(channels_.size()) + 1,
               [this](int peer) { OnPeerGone(peer); }),
      starter_([this] { BeginTransfers(); }) {}

GlooCommunicator::~GlooCommunicator() {
  to_begin_.Close();
  starter_.join();
}

absl::StatusOr<std::unique_ptr<Work>> GlooCommunicator::Send(int channel, at::TensorList tensors) {
  GPIPE_RETURN_IF_ERROR(CheckSend(channels_, rank_, channel, tensors, c10::kCPU));
  return StartEach(tensors, [&](const at::Tensor& tensor) {
    return Start({.sends = true, .peer = channels_[channel].receiver, .tag = channel, .tensor = tensor});
  });
}

absl::StatusOr<std::unique_ptr<Work>> GlooCommunicator::Receive(int channel, at::TensorList tensors) {
  GPIPE_RETURN_IF_ERROR(CheckReceive(channels_, rank_, channel, tensors, c10::kCPU));
  return StartEach(tensors, [&](const at::Tensor& tensor) {
    return Start({.sends = false, .peer = channels_[channel].sender, .tag = channel, .tensor = tensor});
  });
}

absl::Status GlooCommunicator::AllReduceSum(const at::Tensor& tensor) {
  GPIPE_RETURN_IF_ERROR(CheckTensor(tensor, c10::kCPU));
  GPIPE_RETURN_IF_ERROR(StarReduceSum(*this, rank_, size_, tensor));
  return StarBroadcast(*this, rank_, size_, tensor, 0);
}

absl::Status GlooCommunicator::Broadcast(const at::Tensor& tensor, int root) {
  GPIPE_RETURN_IF_ERROR(CheckTensor(tensor, c10::kCPU));
  return StarBroadcast(*this, rank_, size_, tensor, root);
}

void GlooCommunicator::Abort(const absl::Status& reason) {
  absl::MutexLock lock(&mutex_);
  if (!aborted_.ok()) return;
  aborted_ = reason.ok() ? absl::CancelledError("aborted") : reason;
  for (GlooWork* work : under_way_) work->Interrupt();
  monitor_.Disconnect();
}

absl::StatusOr<std::unique_ptr<Work>> GlooCommunicator::SendTo(int peer, const at::Tensor& tensor) {
  return Start({.sends = true, .peer = peer, .tag = static_cast<int>(channels_.size()), .tensor = tensor});
}

absl::StatusOr<std::unique_ptr<Work>> GlooCommunicator::ReceiveFrom(int peer, const at::Tensor& tensor) {
  return Start({.sends = false, .peer = peer, .tag = static_cast<int>(channels_.size()), .tensor = tensor});
}

absl::StatusOr<std::unique_ptr<Work>> GlooCommunicator::Start(GlooTransfer transfer) {
  GPIPE_RETURN_IF_ERROR(Broken(transfer.peer));
  if (transfer.tensor.numel() == 0) return CompletedWork();
  auto work = std::make_unique<GlooWork>(this, std::move(transfer));
  to_begin_.Push(work.get());
  return work;
}

void GlooCommunicator::BeginTransfers() {
  SetThreadName("gloo-starter");
  while (std::optional<GlooWork*> work = to_begin_.Pop()) (*work)->Begin(*group_);
}

void GlooCommunicator::OnPeerGone(int peer) {
  absl::MutexLock lock(&mutex_);
  gone_[peer] = true;
  for (GlooWork* work : under_way_) {
    if (work->peer() == peer) work->Interrupt();
  }
}

absl::Status GlooCommunicator::Broken(int peer) {
  absl::MutexLock lock(&mutex_);
  GPIPE_RETURN_IF_ERROR(aborted_);
  if (!gone_[peer]) return absl::OkStatus();
  return absl::UnavailableError(absl::StrCat("the connection with worker ", peer, " is lost"));
}

// A transfer with a peer that is gone fails by itself; one that has left in order has sent all there was.
absl::Status GlooCommunicator::status() {
  absl::MutexLock lock(&mutex_);
  return aborted_;
}

bool GlooCommunicator::aborted() {
  absl::MutexLock lock(&mutex_);
  return !aborted_.ok();
}

void GlooCommunicator::Register(GlooWork* work) {
  absl::MutexLock lock(&mutex_);
  under_way_.insert(work);
}

void GlooCommunicator::Unregister(GlooWork* work) {
  absl::MutexLock lock(&mutex_);
  under_way_.erase(work);
}

}  // namespace gpipe::worker
