#ifndef GPIPE_WORKER_COMM_COMMUNICATOR_H_
#define GPIPE_WORKER_COMM_COMMUNICATOR_H_

#include <ATen/core/Tensor.h>

#include <memory>
#include <string>
#include <vector>

#include "absl/status/statusor.h"

namespace gpipe::worker {

// One direction of a boundary between two stages of two workers: first in, first out.
struct Channel {
  std::string name;  // Unique in the attempt: `stages0-1.forward`.
  int sender = 0;    // Worker indices.
  int receiver = 0;
};

// A transfer under way. Owned by the caller, and destroyed before its communicator. Its tensors stay alive and
// untouched until Wait has returned (on CUDA: by everything that is not behind it on the stream that was current then).
class Work {
 public:
  // Waits for whatever is still under way.
  virtual ~Work() = default;

  // Makes the result usable by what the caller does next. On CPU it returns when the transfer is complete; on CUDA it
  // makes the current stream wait and returns at once. After an abort it returns that status within a second.
  // UNAVAILABLE: the peer is gone.
  virtual absl::Status Wait() = 0;
};

// Moves tensors between the workers of one attempt. Made per attempt; nothing of an earlier attempt can arrive.
//
// Send, Receive and the collectives are called by one thread (the engine); Abort by any thread, any number of times.
// After an abort every waiter returns within a second and every later call fails with the same status.
// Each pair of workers calls Send and Receive of a channel equally often, with as many tensors of equal sizes; the
// collectives are called by all workers in the same order.
class Communicator {
 public:
  virtual ~Communicator() = default;

  virtual int rank() const = 0;
  virtual int size() const = 0;

  // One transfer of all `tensors`, of which there may be but one. `channel` indexes the channels given when the
  // communicator was made. The tensors are contiguous, on this worker's device. REQUIRES: this worker is the channel's
  // sender (Send) or receiver (Receive).
  virtual absl::StatusOr<std::unique_ptr<Work>> Send(int channel, at::TensorList tensors) = 0;
  virtual absl::StatusOr<std::unique_ptr<Work>> Receive(int channel, at::TensorList tensors) = 0;

  // In place. The sum is formed in rank order, so that it does not depend on timing.
  // On CUDA ordered with the current stream; the host does not wait.
  virtual absl::Status AllReduceSum(const at::Tensor& tensor) = 0;
  virtual absl::Status Broadcast(const at::Tensor& tensor, int root) = 0;

  virtual void Abort(const absl::Status& reason) = 0;

  // What has ended it, as far as is known now: an abort, or a connection that broke; OK while nothing has. Any thread.
  // On CUDA a transfer that is ended leaves whatever was in memory and lets the device go on with that, so what was
  // received may be believed only when this is asked after the device has used it, and is OK.
  virtual absl::Status status() = 0;
};

}  // namespace gpipe::worker

#endif  // GPIPE_WORKER_COMM_COMMUNICATOR_H_
