#include "worker/checkpoint/checkpoint_writer.h"

#include <c10/cuda/CUDAStream.h>

#include <utility>

#include "common/background_priority.h"
#include "common/logging.h"
#include "common/status_macros.h"
#include "worker/checkpoint/host_copy.h"
#include "worker/torch_status.h"

namespace gpipe::worker {

CheckpointWriter::CheckpointWriter(Options options)
    : options_(std::move(options)), thread_([this] { Loop(); }), on_stop_(options_.stop, [this] { Stop(); }) {}

CheckpointWriter::~CheckpointWriter() {
  Stop();
  thread_.join();
}

void CheckpointWriter::Stop() {
  stop_.request_stop();
  absl::MutexLock lock(&mutex_);
  stopped_ = true;
}

absl::Status CheckpointWriter::StatusLocked() const {
  if (!status_.ok() || !stopped_) return status_;
  return absl::CancelledError("no checkpoint is written any more");
}

absl::Status CheckpointWriter::Begin(TrainingState live) {
  GPIPE_RETURN_IF_ERROR(Wait());
  GPIPE_RETURN_IF_ERROR(CopyBuffersToHost(live.model));
  if (options_.device.is_cuda()) {
    GPIPE_RETURN_IF_ERROR(CatchTorch([&] {
      c10::cuda::getCurrentCUDAStream(options_.device.index()).synchronize();
      return absl::OkStatus();
    }));
  }
  absl::MutexLock lock(&mutex_);
  pending_ = std::move(live);
  phase_ = Phase::kCopying;
  return absl::OkStatus();
}

absl::Status CheckpointWriter::WaitForCopy() {
  absl::MutexLock lock(&mutex_);
  mutex_.Await(absl::Condition(this, &CheckpointWriter::Copied));
  return phase_ == Phase::kCopying ? StatusLocked() : absl::OkStatus();
}

absl::Status CheckpointWriter::Wait() {
  absl::MutexLock lock(&mutex_);
  mutex_.Await(absl::Condition(this, &CheckpointWriter::Written));
  return StatusLocked();
}

void CheckpointWriter::Loop() {
  SetThreadName("checkpoint");
  RunInBackground();
  while (true) {
    TrainingState live;
    {
      absl::MutexLock lock(&mutex_);
      mutex_.Await(absl::Condition(this, &CheckpointWriter::HasWork));
      if (stopped_) return;
      live = *std::exchange(pending_, std::nullopt);
    }
    if (const absl::Status saved = Save(std::move(live)); !saved.ok()) return Fail(saved);
  }
}

absl::Status CheckpointWriter::Save(TrainingState live) {
  GPIPE_RETURN_IF_ERROR(CopyToHost(live.model, options_.device));
  GPIPE_RETURN_IF_ERROR(CopyToHost(live.optimizer, options_.device));
  {
    absl::MutexLock lock(&mutex_);
    phase_ = Phase::kWriting;
  }
  GPIPE_RETURN_IF_ERROR(options_.save(live, stop_.get_token()));
  live = {};  // Before the next copy is made.
  absl::MutexLock lock(&mutex_);
  phase_ = Phase::kIdle;
  return absl::OkStatus();
}

void CheckpointWriter::Fail(const absl::Status& status) {
  {
    absl::MutexLock lock(&mutex_);
    if (stopped_) return;
    status_ = status;
  }
  options_.on_failure(status);
}

}  // namespace gpipe::worker
