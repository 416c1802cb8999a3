#include "worker/comm/nccl_communicator.h"

#include <ATen/ATen.h>
#include <c10/cuda/CUDAEvent.h>
#include <c10/cuda/CUDAGuard.h>

#include <algorithm>
#include <cstring>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "common/status_macros.h"
#include "spdlog/spdlog.h"
#include "worker/comm/nccl_status.h"
#include "worker/comm/transfer_check.h"
#include "worker/torch_status.h"

namespace gpipe::worker {
namespace {

// For what is under way when an attempt ends in order: nothing, unless a peer hangs.
constexpr absl::Duration kCloseTimeout = absl::Seconds(5);
constexpr absl::Duration kLookForAbortEvery = absl::Milliseconds(100);

// Rank within a channel's communicator.
constexpr int kSenderRank = 0;
constexpr int kReceiverRank = 1;

absl::Status WithinDeadline(absl::Time deadline) {
  if (absl::Now() < deadline) return absl::OkStatus();
  return absl::DeadlineExceededError("the other workers did not connect in time");
}

// Goes on until the deadline or an abort of the rendezvous, which has no event for it but a refused call.
KeepWaiting UntilDeadlineOrAbort(Rendezvous& rendezvous, absl::Time deadline, const std::string& key) {
  return [&rendezvous, deadline, key, next_look = absl::InfinitePast()]() mutable -> absl::Status {
    const absl::Time now = absl::Now();
    if (now >= next_look) {
      next_look = now + kLookForAbortEvery;
      const absl::Status looked = rendezvous.Get(key, absl::ZeroDuration()).status();
      if (!looked.ok() && !absl::IsDeadlineExceeded(looked)) return looked;
    }
    return WithinDeadline(deadline);
  };
}

// One worker makes the id, the others get it.
absl::StatusOr<ncclUniqueId> ShareId(Rendezvous& rendezvous, const std::string& key, bool makes, absl::Time deadline) {
  ncclUniqueId id;
  if (makes) {
    GPIPE_RETURN_IF_ERROR(NcclStatus(ncclGetUniqueId(&id), absl::StrCat("making the id of ", key)));
    GPIPE_RETURN_IF_ERROR(rendezvous.Put(key, std::string(id.internal, sizeof(id.internal))));
    return id;
  }
  const absl::Duration left = std::max(deadline - absl::Now(), absl::ZeroDuration());
  GPIPE_ASSIGN_OR_RETURN(const std::string value, rendezvous.Get(key, left));
  if (value.size() != sizeof(id.internal)) {
    return absl::InternalError(absl::StrCat("rendezvous key ", key, " holds ", value.size(), " bytes, no NCCL id"));
  }
  std::memcpy(id.internal, value.data(), sizeof(id.internal));
  return id;
}

// The event is on the communicator's stream, behind the transfer.
class NcclWork final : public Work {
 public:
  NcclWork(const AbortStatus* aborted, at::TensorList tensors, const c10::cuda::CUDAStream& stream)
      : aborted_(aborted), tensors_(tensors.vec()) {
    done_.record(stream);
  }
  ~NcclWork() override { Wait().IgnoreError(); }

  absl::Status Wait() override {
    GPIPE_RETURN_IF_ERROR(aborted_->Get());
    if (waited_) return absl::OkStatus();
    waited_ = true;
    return CatchTorch([this] {
      done_.block(c10::cuda::getCurrentCUDAStream(done_.device_index()));
      return absl::OkStatus();
    });
  }

 private:
  const AbortStatus* const aborted_;
  const std::vector<at::Tensor> tensors_;
  c10::cuda::CUDAEvent done_;
  bool waited_ = false;
};

}  // namespace

absl::StatusOr<std::unique_ptr<Communicator>> NcclCommunicator::Connect(const CommOptions& options,
                                                                        Rendezvous& rendezvous, absl::Time deadline,
                                                                        const std::string& rendezvous_key) {
  const KeepWaiting keep_waiting = UntilDeadlineOrAbort(rendezvous, deadline, rendezvous_key);
  return CatchTorch([&]() -> absl::StatusOr<std::unique_ptr<Communicator>> {
    const c10::cuda::CUDAGuard guard(options.device);
    std::unique_ptr<NcclCommunicator> communicator(new NcclCommunicator(options, keep_waiting));
    GPIPE_RETURN_IF_ERROR(communicator->MakeComms(rendezvous, deadline));
    GPIPE_RETURN_IF_ERROR(communicator->WarmUp());
    communicator->StartWatching();
    return communicator;
  });
}

NcclCommunicator::NcclCommunicator(const CommOptions& options, KeepWaiting keep_waiting)
    : rank_(options.rank),
      size_(options.size),
      device_(options.device),
      channels_(options.channels),
      keep_waiting_(std::move(keep_waiting)),
      channel_comms_(options.channels.size()) {}

NcclCommunicator::~NcclCommunicator() {
  if (watchdog_ == nullptr) {
    NcclComm::AbortAll(Comms());  // Never connected.
  } else if (aborted_.Get().ok()) {
    Close();
  }
  watchdog_.reset();  // Before the communicators it looks at.
}

absl::Status NcclCommunicator::MakeComms(Rendezvous& rendezvous, absl::Time deadline) {
  const int device = device_.index();
  GPIPE_ASSIGN_OR_RETURN(const ncclUniqueId all_id, ShareId(rendezvous, "nccl/all", rank_ == 0, deadline));
  GPIPE_ASSIGN_OR_RETURN(all_, NcclComm::Create("collectives", all_id, rank_, size_, device, keep_waiting_));
  for (size_t i = 0; i < channels_.size(); ++i) {
    const Channel& channel = channels_[i];
    if (channel.sender != rank_ && channel.receiver != rank_) continue;
    const int end = channel.sender == rank_ ? kSenderRank : kReceiverRank;
    GPIPE_ASSIGN_OR_RETURN(const ncclUniqueId id, ShareId(rendezvous, absl::StrCat("nccl/channel/", channel.name),
                                                          end == kSenderRank, deadline));
    GPIPE_ASSIGN_OR_RETURN(channel_comms_[i], NcclComm::Create(channel.name, id, end, 2, device, keep_waiting_));
  }
  return absl::OkStatus();
}

absl::Status NcclCommunicator::WarmUp() {
  const at::Tensor byte = at::zeros({1}, at::TensorOptions().dtype(at::kByte).device(device_));
  GPIPE_RETURN_IF_ERROR(AllReduceSum(byte));
  GPIPE_RETURN_IF_ERROR(all_->AwaitIdle(keep_waiting_));
  for (size_t i = 0; i < channels_.size(); ++i) {
    if (channel_comms_[i] == nullptr) continue;
    const int channel = static_cast<int>(i);
    GPIPE_ASSIGN_OR_RETURN(std::unique_ptr<Work> work,
                           channels_[i].sender == rank_ ? Send(channel, byte) : Receive(channel, byte));
    GPIPE_RETURN_IF_ERROR(channel_comms_[i]->AwaitIdle(keep_waiting_));
  }
  return QuickenChannels();
}

// Not that of the collectives: which of its connections a later collective needs is up to NCCL.
absl::Status NcclCommunicator::QuickenChannels() {
  for (const auto& comm : channel_comms_) {
    if (comm != nullptr) GPIPE_RETURN_IF_ERROR(comm->Quicken(keep_waiting_));
  }
  return absl::OkStatus();
}

void NcclCommunicator::StartWatching() {
  keep_waiting_ = [this] { return CheckRunning(); };
  watchdog_ = std::make_unique<NcclWatchdog>(Comms(), [this](const absl::Status& error) { aborted_.Set(error); });
}

std::vector<NcclComm*> NcclCommunicator::Comms() const {
  std::vector<NcclComm*> comms;
  if (all_ != nullptr) comms.push_back(all_.get());
  for (const auto& comm : channel_comms_) {
    if (comm != nullptr) comms.push_back(comm.get());
  }
  return comms;
}

absl::StatusOr<std::unique_ptr<Work>> NcclCommunicator::Send(int channel, at::TensorList tensors) {
  GPIPE_RETURN_IF_ERROR(CheckRunning());
  GPIPE_RETURN_IF_ERROR(CheckSend(channels_, rank_, channel, tensors, device_));
  return Start(*channel_comms_[channel], Operation::kSend, kReceiverRank, tensors);
}

absl::StatusOr<std::unique_ptr<Work>> NcclCommunicator::Receive(int channel, at::TensorList tensors) {
  GPIPE_RETURN_IF_ERROR(CheckRunning());
  GPIPE_RETURN_IF_ERROR(CheckReceive(channels_, rank_, channel, tensors, device_));
  return Start(*channel_comms_[channel], Operation::kReceive, kSenderRank, tensors);
}

absl::Status NcclCommunicator::AllReduceSum(const at::Tensor& tensor) {
  GPIPE_RETURN_IF_ERROR(CheckRunning());
  GPIPE_RETURN_IF_ERROR(CheckTensor(tensor, device_));
  GPIPE_RETURN_IF_ERROR(StarReduceSum(*this, rank_, size_, tensor));
  return BroadcastOnStream(tensor, 0);
}

absl::Status NcclCommunicator::Broadcast(const at::Tensor& tensor, int root) {
  GPIPE_RETURN_IF_ERROR(CheckRunning());
  GPIPE_RETURN_IF_ERROR(CheckTensor(tensor, device_));
  return BroadcastOnStream(tensor, root);
}

void NcclCommunicator::Abort(const absl::Status& reason) {
  if (aborted_.Set(reason)) watchdog_->AbortAll();
}

// The watchdog looks now and then only; an error that NCCL knows of already must not be missed here.
absl::Status NcclCommunicator::status() {
  GPIPE_RETURN_IF_ERROR(aborted_.Get());
  for (NcclComm* comm : Comms()) {
    if (const absl::Status error = comm->AsyncError(); !error.ok()) Abort(error);
  }
  return aborted_.Get();
}

absl::StatusOr<std::unique_ptr<Work>> NcclCommunicator::SendTo(int peer, const at::Tensor& tensor) {
  return Start(*all_, Operation::kSend, peer, tensor);
}

absl::StatusOr<std::unique_ptr<Work>> NcclCommunicator::ReceiveFrom(int peer, const at::Tensor& tensor) {
  return Start(*all_, Operation::kReceive, peer, tensor);
}

absl::Status NcclCommunicator::BroadcastOnStream(const at::Tensor& tensor, int root) {
  GPIPE_ASSIGN_OR_RETURN(std::unique_ptr<Work> work, Start(*all_, Operation::kBroadcast, root, tensor));
  return work->Wait();
}

absl::StatusOr<std::unique_ptr<Work>> NcclCommunicator::Start(NcclComm& comm, Operation operation, int peer,
                                                              at::TensorList tensors) {
  if (std::ranges::all_of(tensors, [](const at::Tensor& tensor) { return tensor.numel() == 0; })) {
    return CompletedWork();
  }
  return CatchTorch([&]() -> absl::StatusOr<std::unique_ptr<Work>> {
    const c10::cuda::CUDAGuard guard(device_);
    // Behind what fills the tensors, or last used their memory.
    c10::cuda::CUDAEvent ready;
    ready.record(c10::cuda::getCurrentCUDAStream(device_.index()));
    ready.block(comm.stream());
    absl::Status started;
    if (operation == Operation::kSend) started = comm.Send(tensors, peer, keep_waiting_);
    if (operation == Operation::kReceive) started = comm.Receive(tensors, peer, keep_waiting_);
    if (operation == Operation::kBroadcast) started = comm.Broadcast(tensors.front(), peer, keep_waiting_);
    if (!started.ok()) {
      GPIPE_RETURN_IF_ERROR(CheckRunning());  // Then the abort is the reason.
      return started;
    }
    return std::make_unique<NcclWork>(&aborted_, tensors, comm.stream());
  });
}

void NcclCommunicator::Close() {
  const absl::Time deadline = absl::Now() + kCloseTimeout;
  const absl::Status closed = NcclComm::CloseAll(Comms(), [deadline] { return WithinDeadline(deadline); });
  if (closed.ok()) return;
  spdlog::warn("closing NCCL: {}", closed.ToString());
  watchdog_->AbortAll();
}

}  // namespace gpipe::worker
