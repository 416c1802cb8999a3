#ifndef GPIPE_ORCHESTRATOR_ARTIFACTS_FILE_THREADS_H_
#define GPIPE_ORCHESTRATOR_ARTIFACTS_FILE_THREADS_H_

#include <functional>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "common/bounded_queue.h"
#include "common/logging.h"

namespace gpipe::orchestrator {

// Where files are read, hashed and written: a disk may take seconds for a piece, and gRPC's own threads carry the
// workers' heartbeats. Any thread may call Run.
class FileThreads {
 public:
  FileThreads(const std::string& name, int threads, size_t capacity) : queue_(capacity) {
    for (int i = 0; i < threads; ++i) {
      threads_.emplace_back([this, name] {
        SetThreadName(name);
        while (auto work = queue_.Pop()) (*work)();
      });
    }
  }
  // Finishes what was taken on.
  ~FileThreads() { queue_.Close(); }

  // False, and the work is dropped, when `capacity` pieces of it wait already.
  bool Run(std::function<void()> work) { return queue_.TryPush(std::move(work)); }

 private:
  BoundedQueue<std::function<void()>> queue_;
  std::vector<std::jthread> threads_;
};

}  // namespace gpipe::orchestrator

#endif  // GPIPE_ORCHESTRATOR_ARTIFACTS_FILE_THREADS_H_
