#ifndef GPIPE_WORKER_ENGINE_MESSAGE_RENDEZVOUS_H_
#define GPIPE_WORKER_ENGINE_MESSAGE_RENDEZVOUS_H_

#include <map>
#include <string>

#include "absl/base/thread_annotations.h"
#include "absl/synchronization/mutex.h"
#include "gpipe/v1/worker_session.pb.h"
#include "worker/comm/rendezvous.h"
#include "worker/engine/message_sink.h"

namespace gpipe::worker {

// The rendezvous of one attempt over the worker's session: RendezvousPut and RendezvousGet out, RendezvousValue in.
class MessageRendezvous : public Rendezvous {
 public:
  MessageRendezvous(const v1::AttemptId& attempt, MessageSink& sink) : attempt_(attempt), sink_(sink) {}

  absl::Status Put(std::string_view key, std::string_view value) override;
  absl::StatusOr<std::string> Get(std::string_view key, absl::Duration timeout) override;
  void Abort(const absl::Status& reason) override;

  // The session's reader hands over what the orchestrator answered.
  void OnValue(const std::string& key, const std::string& value);

 private:
  const v1::AttemptId attempt_;
  MessageSink& sink_;
  absl::Mutex mutex_;
  std::map<std::string, std::string, std::less<>> values_ ABSL_GUARDED_BY(mutex_);
  absl::Status aborted_ ABSL_GUARDED_BY(mutex_);
};

}  // namespace gpipe::worker

#endif  // GPIPE_WORKER_ENGINE_MESSAGE_RENDEZVOUS_H_
