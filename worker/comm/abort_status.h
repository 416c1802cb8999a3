#ifndef GPIPE_WORKER_COMM_ABORT_STATUS_H_
#define GPIPE_WORKER_COMM_ABORT_STATUS_H_

#include "absl/base/thread_annotations.h"
#include "absl/status/status.h"
#include "absl/synchronization/mutex.h"

namespace gpipe::worker {

// Why a communicator was aborted: the first reason stays. Any thread may call any method.
class AbortStatus {
 public:
  // True when this is the first reason. An OK reason counts as CANCELLED.
  bool Set(const absl::Status& reason) {
    absl::MutexLock lock(&mutex_);
    if (!status_.ok()) return false;
    status_ = reason.ok() ? absl::CancelledError("aborted") : reason;
    return true;
  }

  // OK until there is a reason.
  absl::Status Get() const {
    absl::MutexLock lock(&mutex_);
    return status_;
  }

 private:
  mutable absl::Mutex mutex_;
  absl::Status status_ ABSL_GUARDED_BY(mutex_);
};

}  // namespace gpipe::worker

#endif  // GPIPE_WORKER_COMM_ABORT_STATUS_H_
