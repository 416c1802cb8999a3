#include "orchestrator/scheduling/clock_window.h"

#include <algorithm>
#include <cmath>

#include "absl/strings/str_cat.h"

namespace gpipe::orchestrator {

ClockWindow::ClockWindow(const v1::Plan& plan, RoundSource* rounds, int workers, int64_t window)
    : plan_(plan), window_(window), rounds_(rounds), done_(workers, 0), at_least_done_(workers), positions_(workers) {
  LayOut(kToldAhead);
}

int32_t ClockWindow::CyclesOf(const v1::Round& round) const {
  return round.program() < 0 ? 1 : plan_.programs(round.program()).cycles();
}

// Lays out one round more; false where there is none, or at the end of the lookahead.
bool ClockWindow::ExtendByOne() {
  if (exhausted_ || static_cast<int64_t>(spans_.size()) >= kMaxLookahead) return false;
  std::optional<v1::Round> round = rounds_->Next();
  if (!round.has_value()) {
    exhausted_ = rounds_->over();
    news_.set_complete(exhausted_);
    return false;
  }
  spans_.push_back({round->index(), next_tick_, CyclesOf(*round)});
  next_tick_ += spans_.back().cycles;
  *news_.add_rounds() = *std::move(round);
  return true;
}

// Up to that round, as far as there are rounds.
void ClockWindow::LayOut(int64_t round) {
  while ((spans_.empty() || spans_.back().round < round) && ExtendByOne()) {
  }
}

// The tick behind the round, or behind the last one there is.
int64_t ClockWindow::EndOfRound(int64_t round) {
  LayOut(round);
  if (spans_.empty()) return next_tick_;
  const int64_t index = std::min<int64_t>(round - spans_.front().round, spans_.size() - 1);
  return spans_[index].first_tick + spans_[index].cycles;
}

int64_t ClockWindow::TargetTick() {
  if (window_ > 0) {
    // Saturates, because a window may be as large as the type holds.
    while (next_tick_ - ticks_done() < window_ && ExtendByOne()) {
    }
    return next_tick_ - ticks_done() <= window_ ? next_tick_ : ticks_done() + window_;
  }
  const int64_t least = long_rounds() ? kMinLongRounds : kMinRounds;
  int64_t rounds = least;
  if (round_seconds_ > 0) {
    rounds = std::clamp<int64_t>(std::llround(std::min(kAheadSeconds / round_seconds_, 1e6)), least, kMaxRounds);
  }
  return EndOfRound(rounds_done() + rounds);
}

std::optional<Position> ClockWindow::NextGrant() {
  const int64_t target = TargetTick();
  if (target <= granted_) return std::nullopt;
  LayOut(PositionOf(target - 1).round + (long_rounds() ? kLongToldAhead : kToldAhead));
  // A large window moves on by a quarter of itself, so that not every report costs a message to every worker.
  const bool at_the_end = exhausted_ && target == next_tick_;
  if (!at_the_end && target - granted_ < (target - ticks_done()) / 4) return std::nullopt;
  granted_ = target;
  return granted();
}

std::optional<Position> ClockWindow::granted() const {
  if (granted_ == 0) return std::nullopt;
  return PositionOf(granted_ - 1);
}

Position ClockWindow::PositionOf(int64_t tick) const {
  auto after = std::upper_bound(spans_.begin(), spans_.end(), tick,
                                [](int64_t value, const Span& span) { return value < span.first_tick; });
  const Span& span = *std::prev(after);
  return {span.round, static_cast<int32_t>(tick - span.first_tick)};
}

const ClockWindow::Span* ClockWindow::SpanOf(int64_t round) const {
  if (spans_.empty() || round < spans_.front().round || round > spans_.back().round) return nullptr;
  return &spans_[round - spans_.front().round];
}

std::optional<int64_t> ClockWindow::TickOf(Position position) const {
  const Span* span = SpanOf(position.round);
  if (span == nullptr || position.cycle < 0 || position.cycle >= span->cycles) return std::nullopt;
  return span->first_tick + position.cycle;
}

absl::Status ClockWindow::Complete(int worker, Position position) {
  const std::string text = absl::StrCat("cycle ", position.cycle, " of round ", position.round);
  std::optional<int64_t> tick = TickOf(position);
  if (!tick.has_value()) return absl::InvalidArgumentError(absl::StrCat(text, " is not under way"));
  const int64_t done = *tick + 1;
  if (done > granted_) return absl::InvalidArgumentError(absl::StrCat(text, " was not granted"));
  if (done < done_[worker]) return absl::InvalidArgumentError(absl::StrCat(text, " was completed before"));
  SetDone(worker, done);
  positions_[worker] = position;
  Forget();
  return absl::OkStatus();
}

void ClockWindow::SetDone(int worker, int64_t ticks) {
  const bool leaves = done_[worker] == least_done_ && ticks > least_done_;
  done_[worker] = ticks;
  if (!leaves || --at_least_done_ > 0) return;
  least_done_ = *std::min_element(done_.begin(), done_.end());
  at_least_done_ = static_cast<int>(std::count(done_.begin(), done_.end(), least_done_));
}

// Rounds that all workers completed are not needed again, but for the last one, so that there is always one to look at.
void ClockWindow::Forget() {
  const int64_t done = ticks_done();
  while (spans_.size() > 1 && spans_[1].first_tick < done) spans_.pop_front();
}

int64_t ClockWindow::most_ticks_done() const { return *std::max_element(done_.begin(), done_.end()); }

int64_t ClockWindow::rounds_done() const {
  const int64_t done = ticks_done();
  if (done == 0) return 0;
  const Position last = PositionOf(done - 1);
  return last.cycle == SpanOf(last.round)->cycles - 1 ? last.round + 1 : last.round;
}

}  // namespace gpipe::orchestrator
