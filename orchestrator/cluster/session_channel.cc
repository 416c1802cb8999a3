#include "orchestrator/cluster/session_channel.h"

namespace gpipe::orchestrator {

void SessionChannel::Send(const v1::OrchestratorMessage& message) {
  files_->Told(id_, message);
  bool full = false;
  {
    absl::MutexLock lock(&mutex_);
    if (closing_) return;
    full = outgoing_.size() >= kMaxOutgoing;
    if (!full) outgoing_.push_back(message);
  }
  full ? Cancel(absl::ResourceExhaustedError("the worker does not read its messages")) : Advance();
}

void SessionChannel::Close(const absl::Status& status) {
  {
    absl::MutexLock lock(&mutex_);
    if (!closing_) status_ = status;
    closing_ = true;
  }
  Advance();
}

void SessionChannel::Cancel(const absl::Status& status) {
  {
    absl::MutexLock lock(&mutex_);
    if (finished_) return;
    if (!closing_) status_ = status;
    closing_ = true;
    // The one being written stays until gRPC gives it back, which the cancellation brings about.
    outgoing_.resize(writing_ ? 1 : 0);
    ++asking_;
  }
  call_->Cancel();
  {
    absl::MutexLock lock(&mutex_);
    --asking_;
  }
  Advance();
}

void SessionChannel::Read(v1::WorkerMessage* message) {
  {
    absl::MutexLock lock(&mutex_);
    if (finished_) return;
    ++asking_;
  }
  call_->Read(message);
  {
    absl::MutexLock lock(&mutex_);
    --asking_;
  }
  Advance();
}

void SessionChannel::OnWriteDone(bool ok) {
  {
    absl::MutexLock lock(&mutex_);
    writing_ = false;
    outgoing_.pop_front();
    if (!ok) outgoing_.clear();
  }
  Advance();
}

void SessionChannel::Advance() {
  const v1::OrchestratorMessage* next = nullptr;
  bool finish = false;
  {
    absl::MutexLock lock(&mutex_);
    if (finished_ || writing_) return;  // Who ends the write comes by here.
    if (!outgoing_.empty()) next = &outgoing_.front();
    writing_ = next != nullptr;
    finish = closing_ && !writing_ && asking_ == 0;
    finished_ = finish;
  }
  // Behind these the call may be gone.
  if (next != nullptr) call_->Write(next);
  if (finish) call_->Finish(status_);
}

}  // namespace gpipe::orchestrator
