#ifndef GPIPE_WORKER_COMM_RENDEZVOUS_H_
#define GPIPE_WORKER_COMM_RENDEZVOUS_H_

#include <string>
#include <string_view>

#include "absl/status/statusor.h"
#include "absl/time/time.h"

namespace gpipe::worker {

// Key-value exchange between the workers of one attempt, through the orchestrator, so that nobody else can join.
// Any thread may call any method.
class Rendezvous {
 public:
  virtual ~Rendezvous() = default;

  // A key is put once.
  virtual absl::Status Put(std::string_view key, std::string_view value) = 0;

  // Waits until some worker has put the key. DEADLINE_EXCEEDED after `timeout`; the abort's status after Abort.
  virtual absl::StatusOr<std::string> Get(std::string_view key, absl::Duration timeout) = 0;

  // Wakes every waiter; later calls fail with the same status.
  virtual void Abort(const absl::Status& reason) = 0;
};

}  // namespace gpipe::worker

#endif  // GPIPE_WORKER_COMM_RENDEZVOUS_H_
