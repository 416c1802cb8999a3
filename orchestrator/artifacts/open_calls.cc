#include "orchestrator/artifacts/open_calls.h"

#include <algorithm>
#include <utility>

#include "common/logging.h"
#include "spdlog/spdlog.h"

namespace gpipe::orchestrator {

OpenCalls::OpenCalls(std::string kind, const Limits& limits) : kind_(std::move(kind)), limits_(limits) {
  if (limits_.patience < absl::InfiniteDuration()) thread_ = std::jthread([this] { Run(); });
}

OpenCalls::~OpenCalls() { stopped_.Notify(); }

std::unique_ptr<OpenCalls::Place> OpenCalls::Enter(std::function<void()> cancel) {
  absl::MutexLock lock(&mutex_);
  if (places_.size() >= limits_.most) return nullptr;
  std::unique_ptr<Place> place(new Place(*this, std::move(cancel)));
  place->touched_ = clock_.Now();
  places_.insert(place.get());
  return place;
}

OpenCalls::Place::~Place() {
  const auto is_free = [this]() ABSL_EXCLUSIVE_LOCKS_REQUIRED(calls_.mutex_) { return calls_.cancelled_ != this; };
  absl::MutexLock lock(&calls_.mutex_);
  calls_.places_.erase(this);
  if (std::this_thread::get_id() == calls_.thread_.get_id()) return;
  calls_.mutex_.Await(absl::Condition(&is_free));
}

void OpenCalls::Place::Touch() {
  absl::MutexLock lock(&calls_.mutex_);
  touched_ = calls_.clock_.Now();
}

void OpenCalls::Run() {
  SetThreadName("open-calls");
  while (!stopped_.WaitForNotificationWithTimeout(limits_.patience / 4)) Sweep();
}

void OpenCalls::Sweep() {
  while (const std::shared_ptr<const std::function<void()>> cancel = TakeSilent()) {
    spdlog::warn("{} on which nothing came for {} is ended", kind_, absl::FormatDuration(limits_.patience));
    (*cancel)();
    absl::MutexLock lock(&mutex_);
    cancelled_ = nullptr;
  }
}

std::shared_ptr<const std::function<void()>> OpenCalls::TakeSilent() {
  absl::MutexLock lock(&mutex_);
  const absl::Time oldest = clock_.Now() - limits_.patience;
  const auto silent = std::ranges::find_if(places_, [&](const Place* place) { return place->touched_ <= oldest; });
  if (silent == places_.end()) return nullptr;
  cancelled_ = *silent;
  (*silent)->touched_ = absl::InfiniteFuture();  // Once.
  return (*silent)->cancel_;
}

}  // namespace gpipe::orchestrator
