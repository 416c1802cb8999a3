#include "orchestrator/cluster/event_loop.h"

#include <algorithm>
#include <limits>

namespace gpipe::orchestrator {

EventLoop::EventLoop(const Clock* clock, size_t capacity, Transaction transaction)
    : clock_(clock), capacity_(capacity), transaction_(std::move(transaction)) {}

bool EventLoop::TryPost(Task task) { return Enqueue(std::move(task), capacity_); }

bool EventLoop::Post(Task task) { return Enqueue(std::move(task), std::numeric_limits<size_t>::max()); }

bool EventLoop::Enqueue(Task task, size_t limit) {
  {
    absl::MutexLock lock(&mutex_);
    if (stopped_ || queue_.size() >= limit) return false;
    queue_.push_back(std::move(task));
  }
  changed_.Notify();
  return true;
}

EventLoop::TimerId EventLoop::PostAfter(absl::Duration delay, Task task) {
  const TimerId id = next_timer_++;
  const absl::Time when = Now() + delay;
  timers_.emplace(std::make_pair(when, id), std::move(task));
  timer_times_.emplace(id, when);
  return id;
}

void EventLoop::CancelTimer(TimerId id) {
  auto found = timer_times_.find(id);
  if (found == timer_times_.end()) return;
  timers_.erase({found->second, id});
  timer_times_.erase(found);
}

void EventLoop::AfterCommit(Effect effect) { effects_.push_back(std::move(effect)); }

void EventLoop::Run() {
  while (true) {
    std::vector<Task> tasks = WaitForTasks();
    if (tasks.empty()) {
      TakeDueTimers(tasks);
      absl::MutexLock lock(&mutex_);
      if (stopped_ && queue_.empty()) return;
    }
    RunBatch(tasks);
  }
}

void EventLoop::Stop() {
  {
    absl::MutexLock lock(&mutex_);
    stopped_ = true;
  }
  changed_.Notify();
}

void EventLoop::RunPending() {
  while (true) {
    std::vector<Task> tasks = TakeTasks();
    if (tasks.empty()) TakeDueTimers(tasks);
    if (tasks.empty()) return;
    RunBatch(tasks);
  }
}

// Tasks come before timers: a heartbeat that waits in the queue must count before the lease that it renews runs out.
// But a full queue must not hold back timers for ever, so those that are due join the batch behind the tasks.
std::vector<EventLoop::Task> EventLoop::WaitForTasks() {
  while (!HasWorkOrStopped()) {
    const absl::Duration left = timers_.empty() ? absl::InfiniteDuration() : timers_.begin()->first.first - Now();
    if (left <= absl::ZeroDuration()) break;
    changed_.WaitFor(left);
  }
  std::vector<Task> tasks = TakeTasks();
  if (!tasks.empty()) TakeDueTimers(tasks);
  return tasks;
}

std::vector<EventLoop::Task> EventLoop::TakeTasks() {
  absl::MutexLock lock(&mutex_);
  const size_t count = std::min(queue_.size(), kMaxBatch);
  std::vector<Task> tasks(std::make_move_iterator(queue_.begin()), std::make_move_iterator(queue_.begin() + count));
  queue_.erase(queue_.begin(), queue_.begin() + count);
  return tasks;
}

// A timer taken here cannot be cancelled by a task of the same batch, so it asks again when it runs.
void EventLoop::TakeDueTimers(std::vector<Task>& tasks) {
  const absl::Time now = Now();
  for (const auto& [key, task] : timers_) {
    if (key.first > now) break;
    tasks.push_back([this, key = key] {
      auto timer = timers_.extract(key);
      if (timer.empty()) return;
      timer_times_.erase(key.second);
      timer.mapped()();
    });
  }
}

void EventLoop::RunBatch(const std::vector<Task>& tasks) {
  if (tasks.empty()) return;
  absl::Status stored = transaction_.begin();
  for (const Task& task : tasks) task();
  if (stored.ok()) stored = transaction_.commit();
  std::vector<Effect> effects;
  effects.swap(effects_);
  for (const Effect& effect : effects) effect(stored);
}

}  // namespace gpipe::orchestrator
