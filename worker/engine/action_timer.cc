#include "worker/engine/action_timer.h"

#include <ATen/cuda/CUDAEvent.h>

#include <algorithm>
#include <deque>
#include <vector>

#include "worker/engine/clock_offset.h"

namespace gpipe::worker {
namespace {

class CpuTimer : public ActionTimer {
 public:
  void Begin() override {
    intervals_.clear();
    begin_ = end_ = SteadyNanos();
  }
  void Start() override { start_ = SteadyNanos(); }
  size_t Stop() override {
    intervals_.push_back({start_, SteadyNanos()});
    return intervals_.size() - 1;
  }
  void End() override { end_ = SteadyNanos(); }
  bool Complete() const override { return true; }
  void Synchronize() override {}
  int64_t Nanos(size_t action) const override { return intervals_[action].stop - intervals_[action].start; }
  int64_t NanosBefore(size_t action) const override { return intervals_[action].start - begin_; }
  int64_t WallNanos() const override { return end_ - begin_; }
  int64_t BeginNanos(int64_t /*device_free*/) const override { return begin_; }

 private:
  struct Interval {
    int64_t start = 0, stop = 0;
  };
  int64_t begin_ = 0, start_ = 0, end_ = 0;
  std::vector<Interval> intervals_;
};

// A mark on the current stream that can be recorded again.
class Mark {
 public:
  void Record() { event_.record(); }
  bool Passed() const { return event_.query(); }
  void Wait() { event_.synchronize(); }
  int64_t NanosUntil(const Mark& later) const { return static_cast<int64_t>(event_.elapsed_time(later.event_) * 1e6); }

 private:
  at::cuda::CUDAEvent event_{cudaEventDefault};
};

// Events are made once and recorded again in later rounds.
class CudaTimer : public ActionTimer {
 public:
  void Begin() override {
    actions_ = 0;
    seen_ = 0;
    queued_ = SteadyNanos();
    begin_.Record();
    last_ = &begin_;
  }
  void Start() override {
    if (actions_ == intervals_.size()) intervals_.emplace_back();
    intervals_[actions_].start.Record();
  }
  size_t Stop() override {
    last_ = &intervals_[actions_].stop;
    last_->Record();
    return actions_++;
  }
  void End() override {
    end_.Record();
    last_ = &end_;
  }
  bool Complete() const override { return last_->Passed(); }
  void Synchronize() override {
    if (last_->Passed()) return;
    last_->Wait();
    seen_ = SteadyNanos() - begin_.NanosUntil(*last_);
  }
  int64_t Nanos(size_t action) const override { return intervals_[action].start.NanosUntil(intervals_[action].stop); }
  int64_t NanosBefore(size_t action) const override { return begin_.NanosUntil(intervals_[action].start); }
  int64_t WallNanos() const override { return begin_.NanosUntil(end_); }
  // Events know no time of day. Whoever waited for one knows when it passed; else the device came to the beginning when
  // it was queued, or when it was done with what was queued before.
  int64_t BeginNanos(int64_t device_free) const override { return seen_ > 0 ? seen_ : std::max(queued_, device_free); }

 private:
  struct Interval {
    Mark start, stop;
  };
  Mark begin_, end_;
  Mark* last_ = &begin_;
  std::deque<Interval> intervals_;
  size_t actions_ = 0;
  int64_t queued_ = 0;  // When the beginning was queued, on the steady clock.
  int64_t seen_ = 0;    // When it passed, as far as somebody has waited; 0: nobody has.
};

}  // namespace

std::unique_ptr<ActionTimer> ActionTimer::Create(c10::Device device) {
  if (device.is_cuda()) return std::make_unique<CudaTimer>();
  return std::make_unique<CpuTimer>();
}

}  // namespace gpipe::worker
