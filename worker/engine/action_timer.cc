#include "worker/engine/action_timer.h"

#include <ATen/cuda/CUDAEvent.h>

#include <chrono>
#include <deque>
#include <vector>

namespace gpipe::worker {
namespace {

class CpuTimer : public ActionTimer {
 public:
  void Begin() override {
    nanos_.clear();
    begin_ = end_ = Clock::now();
  }
  void Start() override { start_ = Clock::now(); }
  size_t Stop() override {
    nanos_.push_back(std::chrono::nanoseconds(Clock::now() - start_).count());
    return nanos_.size() - 1;
  }
  void End() override { end_ = Clock::now(); }
  bool Complete() const override { return true; }
  void Synchronize() override {}
  int64_t Nanos(size_t action) const override { return nanos_[action]; }
  int64_t WallNanos() const override { return std::chrono::nanoseconds(end_ - begin_).count(); }

 private:
  using Clock = std::chrono::steady_clock;
  Clock::time_point begin_, start_, end_;
  std::vector<int64_t> nanos_;
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
  void Synchronize() override { last_->Wait(); }
  int64_t Nanos(size_t action) const override { return intervals_[action].start.NanosUntil(intervals_[action].stop); }
  int64_t WallNanos() const override { return begin_.NanosUntil(end_); }

 private:
  struct Interval {
    Mark start, stop;
  };
  Mark begin_, end_;
  Mark* last_ = &begin_;
  std::deque<Interval> intervals_;
  size_t actions_ = 0;
};

}  // namespace

std::unique_ptr<ActionTimer> ActionTimer::Create(c10::Device device) {
  if (device.is_cuda()) return std::make_unique<CudaTimer>();
  return std::make_unique<CpuTimer>();
}

}  // namespace gpipe::worker
