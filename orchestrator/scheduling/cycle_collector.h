#ifndef GPIPE_ORCHESTRATOR_SCHEDULING_CYCLE_COLLECTOR_H_
#define GPIPE_ORCHESTRATOR_SCHEDULING_CYCLE_COLLECTOR_H_

#include <cstdint>
#include <map>
#include <vector>

#include "gpipe/v1/job.pb.h"
#include "gpipe/v1/worker_session.pb.h"

namespace gpipe::orchestrator {

// Puts together what the stages did in each clock cycle, while somebody watches cycles. Pure; one thread.
class CycleCollector {
 public:
  // From `tick` on; what is earlier is known in part only.
  void Start(int64_t tick) {
    started_ = true;
    first_tick_ = tick;
  }
  void Stop() {
    started_ = false;
    cycles_.clear();
  }
  bool started() const { return started_; }

  void Add(int64_t tick, const v1::ActionDone& action) {
    if (!started_ || tick < first_tick_) return;
    v1::CycleDone& cycle = cycles_[tick];
    cycle.set_round(action.round());
    cycle.set_cycle(action.cycle());
    *cycle.add_actions() = action;
  }

  // Those that all workers have completed: ticks before `ticks_done`.
  std::vector<v1::CycleDone> Take(int64_t ticks_done) {
    std::vector<v1::CycleDone> taken;
    while (!cycles_.empty() && cycles_.begin()->first < ticks_done) {
      taken.push_back(std::move(cycles_.begin()->second));
      cycles_.erase(cycles_.begin());
    }
    return taken;
  }

 private:
  bool started_ = false;
  int64_t first_tick_ = 0;
  std::map<int64_t, v1::CycleDone> cycles_;  // As many as the window is wide.
};

}  // namespace gpipe::orchestrator

#endif  // GPIPE_ORCHESTRATOR_SCHEDULING_CYCLE_COLLECTOR_H_
