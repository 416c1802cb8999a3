#ifndef GPIPE_ORCHESTRATOR_SCHEDULING_RENDEZVOUS_BOARD_H_
#define GPIPE_ORCHESTRATOR_SCHEDULING_RENDEZVOUS_BOARD_H_

#include <cstddef>
#include <map>
#include <set>
#include <string>
#include <vector>

#include "absl/status/status.h"

namespace gpipe::orchestrator {

// Keys and values that the workers of one attempt exchange. Pure; one thread.
class RendezvousBoard {
 public:
  static constexpr size_t kMaxKeys = 65536;
  static constexpr size_t kMaxKeyBytes = 256;
  static constexpr size_t kMaxValueBytes = 65536;
  static constexpr size_t kMaxBytes = 64 << 20;  // Of all keys and values.

  // Fills `waiting` with the workers that asked for the key. ALREADY_EXISTS: the key was put; RESOURCE_EXHAUSTED: too
  // much.
  absl::Status Put(const std::string& key, const std::string& value, std::vector<int>& waiting) {
    const size_t more = key.size() + value.size();
    if (key.size() > kMaxKeyBytes || value.size() > kMaxValueBytes || values_.size() >= kMaxKeys ||
        bytes_ + more > kMaxBytes) {
      return absl::ResourceExhaustedError("the rendezvous holds too many or too large keys");
    }
    if (!values_.emplace(key, value).second) return absl::AlreadyExistsError("the rendezvous key '" + key + "' exists");
    bytes_ += more;
    if (auto node = waiting_.extract(key); !node.empty()) waiting.assign(node.mapped().begin(), node.mapped().end());
    return absl::OkStatus();
  }

  // The value, or null: then the worker waits for it.
  const std::string* Get(const std::string& key, int worker) {
    if (auto found = values_.find(key); found != values_.end()) return &found->second;
    if (waiting_.size() < kMaxKeys && key.size() <= kMaxKeyBytes) waiting_[key].insert(worker);
    return nullptr;
  }

 private:
  std::map<std::string, std::string> values_;
  std::map<std::string, std::set<int>> waiting_;
  size_t bytes_ = 0;  // Of values_.
};

}  // namespace gpipe::orchestrator

#endif  // GPIPE_ORCHESTRATOR_SCHEDULING_RENDEZVOUS_BOARD_H_
