#ifndef GPIPE_WORKER_DATA_READ_AHEAD_H_
#define GPIPE_WORKER_DATA_READ_AHEAD_H_

#include <c10/core/Device.h>

#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <thread>

#include "absl/status/statusor.h"
#include "absl/synchronization/notification.h"
#include "absl/time/time.h"
#include "common/bounded_queue.h"
#include "pipeline/timeline.h"
#include "worker/data/data_source.h"

namespace gpipe::worker {

// The mini-batches of a job in the order of its rounds, read by a thread of its own (`data-reader`) before the engine
// asks for them: kAhead are ready, and one more is being read. One thread calls Take.
class ReadAhead {
 public:
  static constexpr size_t kAhead = 2;

  // The rounds of the job, one after the other; nullopt at the end. Called by the reader's thread, which may wait in
  // it: whoever destroys the ReadAhead wakes it first.
  using NextRound = std::function<absl::StatusOr<std::optional<pipeline::Round>>()>;

  // Begins to read at once. Batches of a CUDA device must be made in pinned memory.
  ReadAhead(std::unique_ptr<DataSource> source, NextRound next, c10::Device device);
  // Waits for the read under way.
  ~ReadAhead();
  ReadAhead(const ReadAhead&) = delete;
  ReadAhead& operator=(const ReadAhead&) = delete;

  // Waits until the first batch is ready, so that a job does not begin by waiting for it (a new order of very many
  // samples takes a second), and says here already what is wrong with it.
  absl::Status WaitForFirst();

  struct Taken {
    Batch batch;            // On the device; on CUDA its copy is queued, not done.
    absl::Duration waited;  // For the reader.
  };
  // The batch of that round. Rounds must be taken in their order, but for those that compute nothing, which have none.
  // Errors are those of DataSource::Read and of `next`.
  absl::StatusOr<Taken> Take(const pipeline::Round& round);

 private:
  struct Ready {
    int64_t round = 0;
    absl::StatusOr<Batch> batch;
  };

  void Loop(const NextRound& next);
  // Of the next round that reads any; nullopt at the end.
  std::optional<Ready> ReadNext(const NextRound& next);
  at::Tensor ToDevice(const at::Tensor& rows) const;
  // Of a tensor that comes with every batch: copied once.
  at::Tensor KeptOnDevice(const at::Tensor& whole);

  const std::unique_ptr<DataSource> source_;  // The reader's thread only.
  const c10::Device device_;
  BoundedQueue<Ready> ready_{kAhead};
  // Tensors on the device by those of the source, which lives as long: of the thread that calls Take.
  std::map<const c10::TensorImpl*, at::Tensor> kept_;
  absl::Status first_;  // Of the first batch; set before first_read_ is.
  absl::Notification first_read_;
  std::thread thread_;
};

}  // namespace gpipe::worker

#endif  // GPIPE_WORKER_DATA_READ_AHEAD_H_
