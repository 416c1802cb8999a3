#include "worker/comm/gloo_monitor.h"

#include <ATen/ATen.h>

#include <utility>

#include "common/logging.h"
#include "spdlog/spdlog.h"

namespace gpipe::worker {
namespace {

constexpr absl::Duration kLookEvery = absl::Milliseconds(100);

// Looks at a receive without ending it: the abort makes the next wait return at once, and only that one. A broken
// connection makes it throw.
bool IsBroken(c10d::Work& receive) {
  try {
    receive.abort();
    receive.wait(kGlooForever);
    return false;
  } catch (const std::exception& error) {
    spdlog::debug("Gloo: {}", error.what());
    return true;
  }
}

}  // namespace

GlooMonitor::GlooMonitor(c10d::ProcessGroupGloo* group, int rank, int size, int tag,
                         std::function<void(int)> on_peer_gone)
    : on_peer_gone_(std::move(on_peer_gone)) {
  for (int peer = 0; peer < size; ++peer) {
    if (peer == rank) continue;
    std::vector<at::Tensor> byte = {at::empty({1}, at::kByte)};
    c10::intrusive_ptr<c10d::Work> receive = group->recv(byte, peer, tag);
    peers_.push_back({.rank = peer, .byte = byte[0], .receive = std::move(receive)});
  }
  thread_ = std::thread([this] { Run(); });
}

GlooMonitor::~GlooMonitor() {
  {
    absl::MutexLock lock(&mutex_);
    stop_ = true;
  }
  thread_.join();
}

void GlooMonitor::Disconnect() {
  absl::MutexLock lock(&mutex_);
  disconnect_ = true;
}

void GlooMonitor::Run() {
  SetThreadName("gloo-monitor");
  bool disconnect = false;
  while (Pause(&disconnect)) {
    LookAtPeers();
    if (disconnect) BreakConnections();
  }
}

bool GlooMonitor::Pause(bool* disconnect) {
  absl::MutexLock lock(&mutex_);
  const auto told = [this]() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_) { return stop_ || disconnect_; };
  mutex_.AwaitWithTimeout(absl::Condition(&told), kLookEvery);
  *disconnect = std::exchange(disconnect_, false);
  return !stop_;
}

void GlooMonitor::LookAtPeers() {
  for (Peer& peer : peers_) {
    if (peer.gone || !IsBroken(*peer.receive)) continue;
    peer.gone = true;
    on_peer_gone_(peer.rank);
  }
}

// A wait that times out makes Gloo close every connection and fail what waits on them, here and at the peers. One that
// ends sooner does not: that connection has just broken by itself.
void GlooMonitor::BreakConnections() {
  for (Peer& peer : peers_) {
    if (peer.gone) continue;
    try {
      peer.receive->wait(std::chrono::milliseconds(1));
    } catch (const std::exception& error) {
      spdlog::debug("Gloo: {}", error.what());
    }
  }
}

}  // namespace gpipe::worker
