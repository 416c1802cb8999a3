#include "common/http/connection_threads.h"

#include <utility>

#include "common/logging.h"

namespace gpipe {

void ConnectionThreads::Run(std::function<void()> connection) {
  bool all_busy = false;
  {
    absl::MutexLock lock(&mutex_);
    all_busy = ++unfinished_ > threads_.size();
  }
  if (all_busy && threads_.size() < most_) threads_.emplace_back([this] { Serve(); });
  waiting_.Push(std::move(connection));
}

void ConnectionThreads::Join() {
  waiting_.Close();
  for (std::thread& thread : threads_) thread.join();
  threads_.clear();
}

void ConnectionThreads::Serve() {
  SetThreadName("http");
  while (auto connection = waiting_.Pop()) {
    (*connection)();
    absl::MutexLock lock(&mutex_);
    --unfinished_;
  }
}

}  // namespace gpipe
