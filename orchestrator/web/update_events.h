#ifndef GPIPE_ORCHESTRATOR_WEB_UPDATE_EVENTS_H_
#define GPIPE_ORCHESTRATOR_WEB_UPDATE_EVENTS_H_

#include <atomic>
#include <cstdint>
#include <deque>
#include <map>
#include <memory>
#include <string>
#include <string_view>
#include <utility>

#include "absl/base/thread_annotations.h"
#include "absl/synchronization/mutex.h"
#include "google/protobuf/message.h"

namespace gpipe::orchestrator {

// The updates of watches as server-sent events. Who watch the same get the same bytes at about the same time: whoever
// asks first makes the event, which costs more than to send it, and the others share it. Any thread may call any
// method.
class UpdateEvents {
 public:
  // Of the newest updates so many are kept, of so many bytes together. As JSON they are a few times as many.
  static constexpr size_t kMost = 1024;
  static constexpr size_t kMostBytes = size_t{1} << 20;

  // Null: the bytes are no such message.
  using Event = std::shared_ptr<const std::string>;

  // `update` is a message of that type, which has a string `resume_token`: the event's `id`. The rest is its `data`.
  Event Of(const google::protobuf::Descriptor& type, std::string_view update);

  // How many events were made.
  int64_t made() const { return made_; }

 private:
  using Key = std::pair<const google::protobuf::Descriptor*, std::string>;
  // Made by one thread; the others wait for it.
  struct Entry;

  std::shared_ptr<Entry> Find(const google::protobuf::Descriptor& type, std::string_view update);
  Event Make(const google::protobuf::Descriptor& type, std::string_view update);
  void MakeRoom() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);

  std::atomic<int64_t> made_ = 0;
  absl::Mutex mutex_;
  std::map<Key, std::shared_ptr<Entry>> entries_ ABSL_GUARDED_BY(mutex_);
  std::deque<std::map<Key, std::shared_ptr<Entry>>::iterator> by_age_ ABSL_GUARDED_BY(mutex_);  // The oldest first.
  size_t bytes_ ABSL_GUARDED_BY(mutex_) = 0;                                                    // Of the updates.
};

}  // namespace gpipe::orchestrator

#endif  // GPIPE_ORCHESTRATOR_WEB_UPDATE_EVENTS_H_
