#ifndef GPIPE_ORCHESTRATOR_SCHEDULING_ANSWER_QUEUE_H_
#define GPIPE_ORCHESTRATOR_SCHEDULING_ANSWER_QUEUE_H_

#include <deque>
#include <optional>

#include "absl/base/thread_annotations.h"
#include "absl/status/status.h"
#include "absl/synchronization/mutex.h"
#include "gpipe/v1/pipeline_service.pb.h"
#include "orchestrator/scheduling/delivery.h"

namespace gpipe::orchestrator {

using AnswerDelivery = Delivery<std::optional<v1::AskRoundsResponse>>;

// Answers on their way to the client that asks for a job's rounds. None is dropped: who does not read them may not ask
// (Scheduler::Ask). Any thread may call any method.
class AnswerQueue {
 public:
  // The next answer, or nullopt and the end.
  using Deliver = AnswerDelivery::Function;

  // Calls `deliver` once, with the next answer or the end, now or from the thread that pushes or closes.
  // REQUIRES: the last `deliver` was called; it was not told the end.
  void Next(Deliver deliver);

  void Push(v1::AskRoundsResponse answer);
  size_t unread();
  // No more answers. Those that wait are still delivered.
  void Close(const absl::Status& end);
  // The client is gone.
  void Abandon();

 private:
  AnswerDelivery Match() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);

  absl::Mutex mutex_;
  std::deque<v1::AskRoundsResponse> answers_ ABSL_GUARDED_BY(mutex_);
  Deliver waiting_ ABSL_GUARDED_BY(mutex_);
  bool closed_ ABSL_GUARDED_BY(mutex_) = false;
  absl::Status end_ ABSL_GUARDED_BY(mutex_);
};

}  // namespace gpipe::orchestrator

#endif  // GPIPE_ORCHESTRATOR_SCHEDULING_ANSWER_QUEUE_H_
