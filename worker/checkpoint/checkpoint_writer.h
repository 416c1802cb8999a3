#ifndef GPIPE_WORKER_CHECKPOINT_CHECKPOINT_WRITER_H_
#define GPIPE_WORKER_CHECKPOINT_CHECKPOINT_WRITER_H_

#include <c10/core/Device.h>

#include <cstdint>
#include <functional>
#include <optional>
#include <stop_token>
#include <thread>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/status/status.h"
#include "absl/synchronization/mutex.h"
#include "worker/stage/stage.h"

namespace gpipe::worker {

// What a worker saves after so many optimizer steps.
struct TrainingState {
  int64_t step = 0;
  std::vector<NamedTensor> model;      // Parameters and buffers.
  std::vector<NamedTensor> optimizer;  // Its state.
};

// Saves checkpoints on a thread of its own while the engine trains on: it copies the live tensors to host memory,
// which the engine waits for only before it changes them, then writes the copy. There is one copy at most: the next
// checkpoint waits until the last one is written.
//
// The engine's thread calls all methods.
class CheckpointWriter {
 public:
  struct Options {
    c10::Device device = c10::kCPU;
    // Writes the copy and hands it over; on the writer's thread. Ends soon after `stop` is stopped.
    std::function<absl::Status(const TrainingState& copy, const std::stop_token& stop)> save;
    // Called once with the first error, on the writer's thread; not for one that a stop has caused.
    std::function<void(const absl::Status&)> on_failure;
    // Stops the writer: what is being saved is given up, and waiters return CANCELLED.
    std::stop_token stop;
  };

  explicit CheckpointWriter(Options options);
  // Stops, and joins the thread.
  ~CheckpointWriter();
  CheckpointWriter(const CheckpointWriter&) = delete;
  CheckpointWriter& operator=(const CheckpointWriter&) = delete;

  // Begins a checkpoint of live tensors, once the last one is written and the device has done what makes them on the
  // current stream: the copy is made on another. Buffers are copied before it returns, as any pass may change them. The
  // error of an earlier checkpoint, if any.
  absl::Status Begin(TrainingState live);

  // Waits until the live tensors may change. An error of writing the copy is for Begin and Wait.
  absl::Status WaitForCopy();

  // Waits until all checkpoints are written.
  absl::Status Wait();

 private:
  enum class Phase { kIdle, kCopying, kWriting };

  void Loop();
  absl::Status Save(TrainingState live);
  void Fail(const absl::Status& status);
  void Stop();
  // The first error, or CANCELLED once stopped.
  absl::Status StatusLocked() const ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  bool Ended() const ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_) { return stopped_ || !status_.ok(); }
  bool Copied() const ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_) { return phase_ != Phase::kCopying || Ended(); }
  bool Written() const ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_) { return phase_ == Phase::kIdle || Ended(); }
  bool HasWork() const ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_) { return pending_.has_value() || stopped_; }

  const Options options_;
  std::stop_source stop_;  // What `save` hears of.
  absl::Mutex mutex_;
  Phase phase_ ABSL_GUARDED_BY(mutex_) = Phase::kIdle;
  std::optional<TrainingState> pending_ ABSL_GUARDED_BY(mutex_);  // Until the thread takes it.
  absl::Status status_ ABSL_GUARDED_BY(mutex_);
  bool stopped_ ABSL_GUARDED_BY(mutex_) = false;
  std::thread thread_;
  // Last: gone before what it stops.
  std::stop_callback<std::function<void()>> on_stop_;
};

}  // namespace gpipe::worker

#endif  // GPIPE_WORKER_CHECKPOINT_CHECKPOINT_WRITER_H_
