#include "worker/comm/gloo_work.h"

#include <utility>
#include <vector>

#include "spdlog/spdlog.h"
#include "worker/comm/gloo_communicator.h"

namespace gpipe::worker {

GlooWork::GlooWork(GlooCommunicator* owner, GlooTransfer transfer) : owner_(owner), transfer_(std::move(transfer)) {
  owner_->Register(this);
}

GlooWork::~GlooWork() {
  Wait().IgnoreError();
  owner_->Unregister(this);
}

absl::Status GlooWork::Wait() {
  if (!result_) result_ = WaitUntilDone();
  return *result_;
}

void GlooWork::Begin(c10d::ProcessGroupGloo& group) {
  Hand(group);
  // Whoever interrupted it earlier found nothing to interrupt.
  if (!owner_->Broken(peer()).ok()) Interrupt();
  absl::MutexLock lock(&mutex_);
  begun_ = true;
}

void GlooWork::Hand(c10d::ProcessGroupGloo& group) {
  c10::intrusive_ptr<c10d::Work> work;
  absl::Status failure = owner_->Broken(peer());
  try {
    std::vector<at::Tensor> tensors = {transfer_.tensor};
    if (failure.ok()) {
      work = transfer_.sends ? group.send(tensors, peer(), transfer_.tag) : group.recv(tensors, peer(), transfer_.tag);
    }
  } catch (const std::exception& error) {
    failure = Lost(error);
  }
  absl::MutexLock lock(&mutex_);
  work_ = std::move(work);
  failure_ = std::move(failure);
}

void GlooWork::Interrupt() {
  absl::MutexLock lock(&mutex_);
  if (!work_ || std::exchange(interrupted_, true)) return;
  work_->abort();
}

absl::Status GlooWork::WaitUntilDone() {
  {
    absl::MutexLock lock(&mutex_);
    mutex_.Await(absl::Condition(&begun_));
    if (!work_) return failure_;
  }
  while (true) {
    const std::optional<absl::Status> done = WaitOnce(kGlooForever);
    if (done) return *done;
    const absl::Status broken = owner_->Broken(peer());
    if (broken.ok()) continue;
    if (owner_->aborted()) return broken;
    // The peer is gone, but what it sent before may have arrived.
    return WaitOnce(std::chrono::milliseconds(1)).value_or(broken);
  }
}

std::optional<absl::Status> GlooWork::WaitOnce(std::chrono::milliseconds timeout) {
  c10::intrusive_ptr<c10d::Work> work;
  {
    absl::MutexLock lock(&mutex_);
    work = work_;
  }
  try {
    if (work->wait(timeout)) return absl::OkStatus();
    return std::nullopt;
  } catch (const std::exception& error) {
    return Lost(error);
  }
}

absl::Status GlooWork::Lost(const std::exception& error) {
  spdlog::debug("Gloo: {}", error.what());
  owner_->OnPeerGone(peer());
  return owner_->Broken(peer());
}

}  // namespace gpipe::worker
