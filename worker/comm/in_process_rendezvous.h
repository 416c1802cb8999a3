#ifndef GPIPE_WORKER_COMM_IN_PROCESS_RENDEZVOUS_H_
#define GPIPE_WORKER_COMM_IN_PROCESS_RENDEZVOUS_H_

#include <map>
#include <string>

#include "absl/base/thread_annotations.h"
#include "absl/synchronization/mutex.h"
#include "worker/comm/rendezvous.h"

namespace gpipe::worker {

// The rendezvous of workers that are threads of one process: all use the same object.
class InProcessRendezvous final : public Rendezvous {
 public:
  absl::Status Put(std::string_view key, std::string_view value) override;
  absl::StatusOr<std::string> Get(std::string_view key, absl::Duration timeout) override;
  void Abort(const absl::Status& reason) override;

 private:
  absl::Mutex mutex_;
  std::map<std::string, std::string, std::less<>> values_ ABSL_GUARDED_BY(mutex_);
  absl::Status aborted_ ABSL_GUARDED_BY(mutex_);
};

}  // namespace gpipe::worker

#endif  // GPIPE_WORKER_COMM_IN_PROCESS_RENDEZVOUS_H_
