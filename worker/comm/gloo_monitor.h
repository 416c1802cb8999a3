#ifndef GPIPE_WORKER_COMM_GLOO_MONITOR_H_
#define GPIPE_WORKER_COMM_GLOO_MONITOR_H_

#include <functional>
#include <thread>
#include <torch/csrc/distributed/c10d/ProcessGroupGloo.hpp>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/synchronization/mutex.h"

namespace gpipe::worker {

// Longer than any job; Gloo takes a timeout of its own in place of none, and breaks all connections when one passes.
inline constexpr std::chrono::milliseconds kGlooForever = std::chrono::hours(24 * 365);

// A thread that notices broken connections and breaks them on demand.
//
// Gloo wakes a transfer whose peer died only when it had not begun: one that was half written or half read waits on.
// So a receive that nobody answers is left open with every peer; when the connection breaks, Gloo fails that one, and
// `on_peer_gone` is called with the peer's rank, once, on this thread.
class GlooMonitor {
 public:
  // `tag` is used by nothing else. Call on the thread that made `group`, before any transfer.
  GlooMonitor(c10d::ProcessGroupGloo* group, int rank, int size, int tag, std::function<void(int)> on_peer_gone);
  GlooMonitor(const GlooMonitor&) = delete;
  GlooMonitor& operator=(const GlooMonitor&) = delete;
  ~GlooMonitor();

  // Breaks the connections with all peers, soon. Any thread.
  void Disconnect();

 private:
  struct Peer {
    int rank = 0;
    at::Tensor byte;
    c10::intrusive_ptr<c10d::Work> receive;
    bool gone = false;
  };

  void Run();
  // Sleeps until the next look or until told to do something. True: go on.
  bool Pause(bool* disconnect);
  void LookAtPeers();
  void BreakConnections();

  const std::function<void(int)> on_peer_gone_;
  std::vector<Peer> peers_;  // Of the thread alone.
  absl::Mutex mutex_;
  bool stop_ ABSL_GUARDED_BY(mutex_) = false;
  bool disconnect_ ABSL_GUARDED_BY(mutex_) = false;
  std::thread thread_;
};

}  // namespace gpipe::worker

#endif  // GPIPE_WORKER_COMM_GLOO_MONITOR_H_
