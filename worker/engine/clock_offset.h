#ifndef GPIPE_WORKER_ENGINE_CLOCK_OFFSET_H_
#define GPIPE_WORKER_ENGINE_CLOCK_OFFSET_H_

#include <algorithm>
#include <array>
#include <atomic>
#include <chrono>
#include <cstddef>
#include <cstdint>

namespace gpipe::worker {

// Nanoseconds of this process's steady clock.
inline int64_t SteadyNanos() {
  return std::chrono::nanoseconds(std::chrono::steady_clock::now().time_since_epoch()).count();
}

// How far the orchestrator's steady clock is from this worker's, from the round trips of heartbeats: the answer was
// given at some time between sending and hearing, and taken for the middle. The shortest of the last kWindow round
// trips counts, so what it says is wrong by no more than half of that; older ones are forgotten, as clocks drift apart
// by some microseconds a second. One thread calls Add, any thread the rest.
class ClockOffset {
 public:
  static constexpr size_t kWindow = 32;

  // A round trip: sent and heard on this clock, answered on the other one. One that ends before it begins is ignored.
  void Add(int64_t sent_nanos, int64_t answered_nanos, int64_t heard_nanos) {
    if (sent_nanos <= 0 || heard_nanos < sent_nanos) return;
    const int64_t trip = heard_nanos - sent_nanos;
    trips_[added_++ % kWindow] = {trip, answered_nanos - (sent_nanos + trip / 2)};
    const auto end = trips_.begin() + static_cast<std::ptrdiff_t>(std::min(added_, kWindow));
    const auto best =
        std::min_element(trips_.begin(), end, [](const Trip& a, const Trip& b) { return a.nanos < b.nanos; });
    offset_nanos_.store(best->offset_nanos, std::memory_order_relaxed);
    known_.store(true, std::memory_order_release);
  }

  // Another orchestrator, or the same one after a restart of its machine, has another clock.
  void Forget() {
    known_.store(false, std::memory_order_release);
    added_ = 0;
  }

  // A time of this worker's clock on the orchestrator's; 0 while nothing is known of that.
  int64_t OnOrchestrator(int64_t nanos) const {
    if (!known_.load(std::memory_order_acquire)) return 0;
    return std::max<int64_t>(0, nanos + offset_nanos_.load(std::memory_order_relaxed));
  }

 private:
  struct Trip {
    int64_t nanos = 0;
    int64_t offset_nanos = 0;
  };

  std::array<Trip, kWindow> trips_;  // Of the thread that adds.
  size_t added_ = 0;
  std::atomic<bool> known_ = false;
  std::atomic<int64_t> offset_nanos_ = 0;
};

}  // namespace gpipe::worker

#endif  // GPIPE_WORKER_ENGINE_CLOCK_OFFSET_H_
