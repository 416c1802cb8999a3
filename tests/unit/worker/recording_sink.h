#ifndef GPIPE_TESTS_UNIT_WORKER_RECORDING_SINK_H_
#define GPIPE_TESTS_UNIT_WORKER_RECORDING_SINK_H_

#include <functional>
#include <optional>
#include <utility>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/synchronization/mutex.h"
#include "absl/time/time.h"
#include "worker/engine/message_sink.h"

namespace gpipe::worker {

// Keeps what is sent. Any thread may call any method.
class RecordingSink : public MessageSink {
 public:
  void Send(v1::WorkerMessage message) override {
    absl::MutexLock lock(&mutex_);
    messages_.push_back(std::move(message));
  }

  void ActivityChanged() override {
    absl::MutexLock lock(&mutex_);
    ++changes_;
  }

  std::vector<v1::WorkerMessage> messages() const {
    absl::MutexLock lock(&mutex_);
    return messages_;
  }

  int changes() const {
    absl::MutexLock lock(&mutex_);
    return changes_;
  }

  // The first message from number `first` on that `wanted` likes; nullopt after half a minute.
  std::optional<v1::WorkerMessage> WaitFor(const std::function<bool(const v1::WorkerMessage&)>& wanted,
                                           size_t first = 0) {
    absl::MutexLock lock(&mutex_);
    std::optional<v1::WorkerMessage> found;
    auto there = [&]() {
      for (; first < messages_.size() && !found; ++first) {
        if (wanted(messages_[first])) found = messages_[first];
      }
      return found.has_value();
    };
    mutex_.AwaitWithTimeout(absl::Condition(&there), absl::Seconds(30));
    return found;
  }

 private:
  mutable absl::Mutex mutex_;
  std::vector<v1::WorkerMessage> messages_ ABSL_GUARDED_BY(mutex_);
  int changes_ ABSL_GUARDED_BY(mutex_) = 0;
};

}  // namespace gpipe::worker

#endif  // GPIPE_TESTS_UNIT_WORKER_RECORDING_SINK_H_
