#ifndef GPIPE_ORCHESTRATOR_CLUSTER_BACKGROUND_H_
#define GPIPE_ORCHESTRATOR_CLUSTER_BACKGROUND_H_

#include <functional>
#include <string>
#include <thread>

#include "common/bounded_queue.h"
#include "common/logging.h"

namespace gpipe::orchestrator {

// Where blocking work (reading data files, merging models) is done, so that it does not hold up the loop.
class Background {
 public:
  virtual ~Background() = default;
  // First in, first out. False, and the work is dropped, when there is too much already.
  virtual bool Run(std::function<void()> work) = 0;
};

// One thread. Any thread may call Run.
class BackgroundThread final : public Background {
 public:
  BackgroundThread(std::string name, size_t capacity)
      : queue_(capacity), thread_([this, name = std::move(name)] {
          SetThreadName(name);
          while (auto work = queue_.Pop()) (*work)();
        }) {}
  // Finishes what was taken on.
  ~BackgroundThread() override {
    queue_.Close();
    thread_.join();
  }
  bool Run(std::function<void()> work) override { return queue_.TryPush(std::move(work)); }

 private:
  BoundedQueue<std::function<void()>> queue_;
  std::thread thread_;
};

}  // namespace gpipe::orchestrator

#endif  // GPIPE_ORCHESTRATOR_CLUSTER_BACKGROUND_H_
