#include "worker/comm/in_process_communicator.h"

#include <cstring>
#include <deque>
#include <map>
#include <tuple>
#include <utility>

#include "absl/base/thread_annotations.h"
#include "absl/strings/str_cat.h"
#include "absl/synchronization/mutex.h"
#include "common/status_macros.h"
#include "worker/comm/star.h"
#include "worker/comm/transfer_check.h"

namespace gpipe::worker {
namespace {

// A line from one worker to another: a channel, or what the collectives use between two workers (channel -1).
struct Line {
  int channel = -1;
  int sender = 0;
  int receiver = 0;

  auto operator<=>(const Line&) const = default;
};

// One end's half of a transfer. It lives in its Work; the hub points at it until it is finished.
struct Half {
  Line line;
  bool sends = false;
  at::Tensor tensor;
  bool finished = false;
  absl::Status status;

  int self() const { return sends ? line.sender : line.receiver; }
  int peer() const { return sends ? line.receiver : line.sender; }
};

// Where the halves meet. Shared by the communicators of all ranks, which end in any order.
class Hub {
 public:
  explicit Hub(int size) : aborted_(size), gone_(size, false) {}

  // Pairs `half` with the oldest half of the other end, or queues it.
  absl::Status Offer(Half* half) {
    absl::MutexLock lock(&mutex_);
    GPIPE_RETURN_IF_ERROR(aborted_[half->self()]);
    if (gone_[half->peer()]) return Gone(half->peer());
    std::deque<Half*>& waiting = waiting_[half->line];
    if (waiting.empty() || waiting.front()->sends == half->sends) {
      waiting.push_back(half);
      return absl::OkStatus();
    }
    Copy(half, waiting.front());
    waiting.pop_front();
    return absl::OkStatus();
  }

  absl::Status Wait(Half* half) {
    absl::MutexLock lock(&mutex_);
    mutex_.Await(absl::Condition(&half->finished));
    return half->status;
  }

  absl::Status Check(int rank) {
    absl::MutexLock lock(&mutex_);
    return aborted_[rank];
  }

  void Abort(int rank, const absl::Status& reason) {
    absl::MutexLock lock(&mutex_);
    if (!aborted_[rank].ok()) return;
    aborted_[rank] = reason.ok() ? absl::CancelledError("aborted") : reason;
    Leave(rank);
  }

  void Remove(int rank) {
    absl::MutexLock lock(&mutex_);
    Leave(rank);
  }

 private:
  static absl::Status Gone(int rank) { return absl::UnavailableError(absl::StrCat("worker ", rank, " is gone")); }

  static void Finish(Half* half, absl::Status status) {
    half->finished = true;
    half->status = std::move(status);
  }

  static void Copy(Half* one, Half* other) {
    const Half* sender = one->sends ? one : other;
    const Half* receiver = one->sends ? other : one;
    absl::Status status;
    if (sender->tensor.nbytes() == receiver->tensor.nbytes()) {
      std::memcpy(receiver->tensor.mutable_data_ptr(), sender->tensor.const_data_ptr(), sender->tensor.nbytes());
    } else {
      status = absl::InternalError(absl::StrCat("worker ", sender->self(), " sends ", sender->tensor.nbytes(),
                                                " bytes, worker ", receiver->self(), " expects ",
                                                receiver->tensor.nbytes()));
    }
    Finish(one, status);
    Finish(other, status);
  }

  void Leave(int rank) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_) {
    gone_[rank] = true;
    for (auto& [line, waiting] : waiting_) {
      if (line.sender != rank && line.receiver != rank) continue;
      for (Half* half : waiting) Finish(half, half->self() == rank ? aborted_[rank] : Gone(rank));
      waiting.clear();
    }
  }

  absl::Mutex mutex_;
  std::map<Line, std::deque<Half*>> waiting_ ABSL_GUARDED_BY(mutex_);
  std::vector<absl::Status> aborted_ ABSL_GUARDED_BY(mutex_);
  std::vector<bool> gone_ ABSL_GUARDED_BY(mutex_);
};

class InProcessWork final : public Work {
 public:
  static absl::StatusOr<std::unique_ptr<Work>> Start(std::shared_ptr<Hub> hub, Line line, bool sends,
                                                     const at::Tensor& tensor) {
    if (tensor.numel() == 0) {
      GPIPE_RETURN_IF_ERROR(hub->Check(sends ? line.sender : line.receiver));
      return CompletedWork();
    }
    auto work = std::make_unique<InProcessWork>(std::move(hub));
    work->half_.line = line;
    work->half_.sends = sends;
    work->half_.tensor = tensor;
    // A refused half is not in the hub, so that the destructor must not wait for it.
    absl::Status offered = work->hub_->Offer(&work->half_);
    if (!offered.ok()) work->half_.finished = true;
    GPIPE_RETURN_IF_ERROR(offered);
    return work;
  }

  explicit InProcessWork(std::shared_ptr<Hub> hub) : hub_(std::move(hub)) {}
  ~InProcessWork() override { hub_->Wait(&half_).IgnoreError(); }
  absl::Status Wait() override { return hub_->Wait(&half_); }

 private:
  std::shared_ptr<Hub> hub_;
  Half half_;
};

class InProcessCommunicator final : public Communicator, private StarLinks {
 public:
  InProcessCommunicator(std::shared_ptr<Hub> hub, int rank, int size, std::vector<Channel> channels)
      : hub_(std::move(hub)), rank_(rank), size_(size), channels_(std::move(channels)) {}
  ~InProcessCommunicator() override { hub_->Remove(rank_); }

  int rank() const override { return rank_; }
  int size() const override { return size_; }

  absl::StatusOr<std::unique_ptr<Work>> Send(int channel, at::TensorList tensors) override {
    GPIPE_RETURN_IF_ERROR(CheckSend(channels_, rank_, channel, tensors, c10::kCPU));
    return StartEach(tensors, [&](const at::Tensor& tensor) {
      return InProcessWork::Start(hub_, Line{channel, rank_, channels_[channel].receiver}, true, tensor);
    });
  }

  absl::StatusOr<std::unique_ptr<Work>> Receive(int channel, at::TensorList tensors) override {
    GPIPE_RETURN_IF_ERROR(CheckReceive(channels_, rank_, channel, tensors, c10::kCPU));
    return StartEach(tensors, [&](const at::Tensor& tensor) {
      return InProcessWork::Start(hub_, Line{channel, channels_[channel].sender, rank_}, false, tensor);
    });
  }

  absl::Status AllReduceSum(const at::Tensor& tensor) override {
    GPIPE_RETURN_IF_ERROR(hub_->Check(rank_));
    GPIPE_RETURN_IF_ERROR(CheckTensor(tensor, c10::kCPU));
    GPIPE_RETURN_IF_ERROR(StarReduceSum(*this, rank_, size_, tensor));
    return StarBroadcast(*this, rank_, size_, tensor, 0);
  }

  absl::Status Broadcast(const at::Tensor& tensor, int root) override {
    GPIPE_RETURN_IF_ERROR(hub_->Check(rank_));
    GPIPE_RETURN_IF_ERROR(CheckTensor(tensor, c10::kCPU));
    return StarBroadcast(*this, rank_, size_, tensor, root);
  }

  void Abort(const absl::Status& reason) override { hub_->Abort(rank_, reason); }
  absl::Status status() override { return hub_->Check(rank_); }

 private:
  absl::StatusOr<std::unique_ptr<Work>> SendTo(int peer, const at::Tensor& tensor) override {
    return InProcessWork::Start(hub_, Line{-1, rank_, peer}, true, tensor);
  }
  absl::StatusOr<std::unique_ptr<Work>> ReceiveFrom(int peer, const at::Tensor& tensor) override {
    return InProcessWork::Start(hub_, Line{-1, peer, rank_}, false, tensor);
  }

  const std::shared_ptr<Hub> hub_;
  const int rank_;
  const int size_;
  const std::vector<Channel> channels_;
};

}  // namespace

absl::StatusOr<std::vector<std::unique_ptr<Communicator>>> MakeInProcessCommunicators(int size,
                                                                                      std::vector<Channel> channels) {
  GPIPE_RETURN_IF_ERROR(CheckChannels(channels, size));
  auto hub = std::make_shared<Hub>(size);
  std::vector<std::unique_ptr<Communicator>> communicators;
  for (int rank = 0; rank < size; ++rank) {
    communicators.push_back(std::make_unique<InProcessCommunicator>(hub, rank, size, channels));
  }
  return communicators;
}

}  // namespace gpipe::worker
