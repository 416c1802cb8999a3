#ifndef GPIPE_TESTS_UNIT_WORKER_PROCESS_RENDEZVOUS_H_
#define GPIPE_TESTS_UNIT_WORKER_PROCESS_RENDEZVOUS_H_

#include <string>

#include "absl/base/thread_annotations.h"
#include "absl/synchronization/mutex.h"
#include "worker/comm/rendezvous.h"

namespace gpipe::worker {

// The rendezvous of a test's child process: asks the parent over a SOCK_SEQPACKET socket, one question at a time.
class ProcessRendezvous final : public Rendezvous {
 public:
  ProcessRendezvous(int socket, std::string prefix) : socket_(socket), prefix_(std::move(prefix)) {}

  absl::Status Put(std::string_view key, std::string_view value) override;
  absl::StatusOr<std::string> Get(std::string_view key, absl::Duration timeout) override;
  void Abort(const absl::Status& reason) override;

 private:
  absl::StatusOr<std::string> Ask(const std::string& question);

  const int socket_;
  const std::string prefix_;
  absl::Mutex mutex_;
  absl::Status aborted_ ABSL_GUARDED_BY(mutex_);
};

// The parent's side: answers out of `rendezvous` until the child closes its end.
void ServeRendezvous(int socket, Rendezvous& rendezvous);

}  // namespace gpipe::worker

#endif  // GPIPE_TESTS_UNIT_WORKER_PROCESS_RENDEZVOUS_H_
