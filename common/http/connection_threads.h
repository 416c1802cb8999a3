#ifndef GPIPE_COMMON_HTTP_CONNECTION_THREADS_H_
#define GPIPE_COMMON_HTTP_CONNECTION_THREADS_H_

#include <cstddef>
#include <functional>
#include <thread>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/synchronization/mutex.h"
#include "common/bounded_queue.h"

namespace gpipe {

// The threads that serve connections, one each: made when a connection finds none idle, up to a number, and kept. Where
// all are busy as many connections wait, and then who accepts them does.
//
// One thread calls Run and Join.
class ConnectionThreads {
 public:
  explicit ConnectionThreads(size_t most) : most_(most), waiting_(most) {}
  ConnectionThreads(const ConnectionThreads&) = delete;
  ConnectionThreads& operator=(const ConnectionThreads&) = delete;

  void Run(std::function<void()> connection);
  // Serves what waits, and ends the threads.
  void Join();

 private:
  void Serve();

  const size_t most_;
  BoundedQueue<std::function<void()>> waiting_;
  std::vector<std::thread> threads_;
  absl::Mutex mutex_;
  size_t unfinished_ ABSL_GUARDED_BY(mutex_) = 0;  // Connections that wait or are served.
};

}  // namespace gpipe

#endif  // GPIPE_COMMON_HTTP_CONNECTION_THREADS_H_
