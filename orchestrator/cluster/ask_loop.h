#ifndef GPIPE_ORCHESTRATOR_CLUSTER_ASK_LOOP_H_
#define GPIPE_ORCHESTRATOR_CLUSTER_ASK_LOOP_H_

#include <functional>
#include <memory>
#include <optional>
#include <utility>

#include "absl/base/thread_annotations.h"
#include "absl/synchronization/mutex.h"
#include "absl/time/time.h"
#include "common/clock.h"
#include "common/steady_signal.h"
#include "orchestrator/cluster/event_loop.h"

namespace gpipe::orchestrator {

// Runs `question` on the loop, and waits for its answer at most `patience`. nullopt: the loop has not answered, has too
// much to do, or has stopped. The question may still be run afterwards: it must not use what the caller owns. Any
// thread but the loop's.
template <typename T>
std::optional<T> AskLoop(EventLoop& loop, std::function<T()> question, absl::Duration patience) {
  struct Answer {
    SteadySignal there;
    absl::Mutex mutex;
    std::optional<T> value ABSL_GUARDED_BY(mutex);

    std::optional<T> Take() {
      absl::MutexLock lock(&mutex);
      return std::exchange(value, std::nullopt);
    }
  };
  const auto answer = std::make_shared<Answer>();
  const bool posted = loop.TryPost([answer, question = std::move(question)] {
    T value = question();
    {
      absl::MutexLock lock(&answer->mutex);
      answer->value = std::move(value);
    }
    answer->there.Notify();
  });
  if (posted) answer->there.WaitFor(patience);
  return answer->Take();
}

}  // namespace gpipe::orchestrator

#endif  // GPIPE_ORCHESTRATOR_CLUSTER_ASK_LOOP_H_
