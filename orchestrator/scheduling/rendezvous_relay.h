#ifndef GPIPE_ORCHESTRATOR_SCHEDULING_RENDEZVOUS_RELAY_H_
#define GPIPE_ORCHESTRATOR_SCHEDULING_RENDEZVOUS_RELAY_H_

#include <functional>
#include <string>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "gpipe/v1/worker_session.pb.h"
#include "orchestrator/scheduling/rendezvous_board.h"

namespace gpipe::orchestrator {

// The rendezvous of one attempt over its workers' sessions: RendezvousPut and RendezvousGet in, RendezvousValue out.
// For the loop's thread.
class RendezvousRelay {
 public:
  // Brings a message to the attempt's worker of that index.
  using SendTo = std::function<void(int index, v1::OrchestratorMessage message)>;

  RendezvousRelay(v1::AttemptId attempt, SendTo send) : attempt_(std::move(attempt)), send_(std::move(send)) {}

  // As RendezvousBoard::Put.
  absl::Status OnPut(const v1::RendezvousPut& put) {
    std::vector<int> waiting;
    absl::Status status = board_.Put(put.key(), put.value(), waiting);
    for (int index : waiting) Send(index, put.key(), put.value());
    return status;
  }

  void OnGet(int index, const v1::RendezvousGet& get) {
    const std::string* value = board_.Get(get.key(), index);
    if (value != nullptr) Send(index, get.key(), *value);
  }

 private:
  void Send(int index, const std::string& key, const std::string& value) {
    v1::OrchestratorMessage message;
    v1::RendezvousValue& sent = *message.mutable_rendezvous_value();
    *sent.mutable_attempt() = attempt_;
    sent.set_key(key);
    sent.set_value(value);
    send_(index, std::move(message));
  }

  const v1::AttemptId attempt_;
  const SendTo send_;
  RendezvousBoard board_;
};

}  // namespace gpipe::orchestrator

#endif  // GPIPE_ORCHESTRATOR_SCHEDULING_RENDEZVOUS_RELAY_H_
