#ifndef GPIPE_ORCHESTRATOR_ARTIFACTS_OPEN_CALLS_H_
#define GPIPE_ORCHESTRATOR_ARTIFACTS_OPEN_CALLS_H_

#include <functional>
#include <memory>
#include <set>
#include <string>
#include <thread>

#include "absl/base/thread_annotations.h"
#include "absl/synchronization/mutex.h"
#include "absl/synchronization/notification.h"
#include "absl/time/time.h"
#include "common/clock.h"

namespace gpipe::orchestrator {

// The calls of one kind that are open: no more than so many, and none that nothing comes of. A client that is gone is
// noticed by keepalive; this is about one that is there and stays silent, while its call holds a file. Any thread may
// call any method.
class OpenCalls {
 public:
  struct Limits {
    size_t most;
    absl::Duration patience;  // With a call on which nothing happens; InfiniteDuration: it may stay.
  };
  OpenCalls(std::string kind, const Limits& limits);
  // REQUIRES: no call is open.
  ~OpenCalls();
  OpenCalls(const OpenCalls&) = delete;
  OpenCalls& operator=(const OpenCalls&) = delete;

  // A place among them.
  class Place {
   public:
    // Gives it back; waits for a `cancel` under way, unless that is what has come to give it back.
    ~Place();
    // Something happens on the call.
    void Touch();

   private:
    friend class OpenCalls;
    Place(OpenCalls& calls, std::function<void()> cancel)
        : calls_(calls), cancel_(std::make_shared<const std::function<void()>>(std::move(cancel))) {}
    OpenCalls& calls_;
    const std::shared_ptr<const std::function<void()>>
        cancel_;          // Shared with who calls it: the place may go meanwhile.
    absl::Time touched_;  // Guarded by the calls' mutex.
  };
  // Null: there are as many as there may be. `cancel` is called, by a thread of this object, when its patience is at an
  // end, and never begins after the place is gone. No lock is held, so that what ends the call may run inside it: gRPC
  // is free to call back from within a cancellation.
  std::unique_ptr<Place> Enter(std::function<void()> cancel);

 private:
  void Run();
  void Sweep();
  // What cancels a call that is silent for too long, which is `cancelled_` from then on; null: there is none.
  std::shared_ptr<const std::function<void()>> TakeSilent();

  const std::string kind_;
  const Limits limits_;
  const SteadyClock clock_;
  absl::Mutex mutex_;
  std::set<Place*> places_ ABSL_GUARDED_BY(mutex_);
  const Place* cancelled_ ABSL_GUARDED_BY(mutex_) = nullptr;  // Its `cancel` is under way.
  absl::Notification stopped_;
  std::jthread thread_;
};

}  // namespace gpipe::orchestrator

#endif  // GPIPE_ORCHESTRATOR_ARTIFACTS_OPEN_CALLS_H_
