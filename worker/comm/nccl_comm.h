#ifndef GPIPE_WORKER_COMM_NCCL_COMM_H_
#define GPIPE_WORKER_COMM_NCCL_COMM_H_

#include <ATen/core/Tensor.h>
#include <c10/cuda/CUDAStream.h>
#include <nccl.h>

#include <atomic>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/functional/function_ref.h"
#include "absl/status/statusor.h"
#include "absl/synchronization/mutex.h"

namespace gpipe::worker {

// Asked again and again while NCCL is busy; the first status that is not OK ends the wait.
using KeepWaiting = std::function<absl::Status()>;

// One NCCL communicator, and the stream its operations run on. It is non-blocking, so that connecting to a peer that
// died can be given up.
//
// Operations are enqueued by one thread; AsyncError and AbortAll may be called by another meanwhile. No call waits for
// a peer, but for those that say so, and for the first operation of its kind between two ranks, which makes the
// connection.
class NcclComm {
 public:
  // `name` is for messages. Waits until all ranks have called it.
  static absl::StatusOr<std::unique_ptr<NcclComm>> Create(std::string name, const ncclUniqueId& id, int rank, int size,
                                                          int device, const KeepWaiting& keep_waiting);
  NcclComm(const NcclComm&) = delete;
  NcclComm& operator=(const NcclComm&) = delete;
  // Aborts what was not closed.
  ~NcclComm();

  // To end communicators of one device, end them all at once: freeing one waits for the whole device, so for the
  // operations of the others too.

  // Ends what runs on the streams, and frees the communicators; later operations fail.
  static void AbortAll(const std::vector<NcclComm*>& comms);

  // The orderly end, once what is under way is done. Not OK: some are still open, and to be aborted.
  static absl::Status CloseAll(const std::vector<NcclComm*>& comms, const KeepWaiting& keep_waiting);

  const c10::cuda::CUDAStream& stream() const { return stream_; }

  // Operations from here on no longer cost a thread of NCCL's each, which takes a third of a millisecond. All ranks
  // call it once, after the first operation of each kind that they use. Waits until all have, but for no operation.
  absl::Status Quicken(const KeepWaiting& keep_waiting);

  // Until the operations so far are done.
  absl::Status AwaitIdle(const KeepWaiting& keep_waiting) const;

  // Enqueue on stream(). Tensors are contiguous; their bytes are sent as they are. Several are sent and received by one
  // kernel.
  absl::Status Send(at::TensorList tensors, int peer, const KeepWaiting& keep_waiting);
  absl::Status Receive(at::TensorList tensors, int peer, const KeepWaiting& keep_waiting);
  absl::Status Broadcast(const at::Tensor& tensor, int root, const KeepWaiting& keep_waiting);

  // OK while nothing is wrong, also after the end.
  absl::Status AsyncError();

 private:
  NcclComm(std::string name, int rank, int device, cudaStream_t stream);

  using Operation = absl::FunctionRef<ncclResult_t(ncclComm_t)>;
  absl::Status Enqueue(const char* doing, const KeepWaiting& keep_waiting, Operation operation);
  absl::Status AwaitReady(ncclResult_t result, const char* doing, const KeepWaiting& keep_waiting)
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);

  using Ending = ncclResult_t (*)(ncclComm_t);  // ncclCommAbort or ncclCommDestroy.
  static absl::Status EndAll(const std::vector<NcclComm*>& comms, Ending end);
  bool childless() ABSL_LOCKS_EXCLUDED(child_mutex_);
  void EndChild(Ending end);
  void ForgetChild();
  void End(Ending end);
  void StartFinalizing();
  absl::Status FinishFinalizing(const KeepWaiting& keep_waiting);
  absl::Status CheckOpen() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);

  const std::string name_;
  const int rank_;
  const cudaStream_t raw_stream_;
  const c10::cuda::CUDAStream stream_;
  absl::Mutex mutex_;
  ncclComm_t comm_ ABSL_GUARDED_BY(mutex_) = nullptr;  // Non-blocking. Null when aborted or closed.
  absl::Mutex child_mutex_;                            // Shared by what uses the child, but for its end.
  // Blocking, of the same ranks and connections, once quickened. Null when aborted or closed.
  ncclComm_t child_ ABSL_GUARDED_BY(child_mutex_) = nullptr;
  std::atomic<bool> child_ending_ = false;  // Claimed by the one thread that ends it.
};

}  // namespace gpipe::worker

#endif  // GPIPE_WORKER_COMM_NCCL_COMM_H_
