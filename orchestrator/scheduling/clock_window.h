#ifndef GPIPE_ORCHESTRATOR_SCHEDULING_CLOCK_WINDOW_H_
#define GPIPE_ORCHESTRATOR_SCHEDULING_CLOCK_WINDOW_H_

#include <cstdint>
#include <deque>
#include <optional>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "gpipe/v1/plan.pb.h"
#include "gpipe/v1/worker_session.pb.h"
#include "orchestrator/planning/round_source.h"

namespace gpipe::orchestrator {

// A clock cycle of a job: (round, cycle).
struct Position {
  int64_t round = 0;
  int32_t cycle = 0;

  bool operator==(const Position&) const = default;
};

// The arithmetic of grants: what the workers of an attempt have completed, and up to where they may go. Rounds have
// different numbers of cycles, so all is counted in ticks, cycles from the beginning of the attempt. Workers are told
// of rounds before these are granted, as far as there are any. Pure; one thread.
class ClockWindow {
 public:
  // `window` as Pipeline.clock_window: cycles ahead of the slowest worker, or 0 for whole rounds, at least kMinRounds.
  // `plan` and `rounds` outlive the window.
  ClockWindow(const v1::Plan& plan, RoundSource* rounds, int workers, int64_t window);

  // The next grant to send to all workers; nullopt when it would be no news. Counts as sent.
  std::optional<Position> NextGrant();
  std::optional<Position> granted() const;

  // What the workers have not been told yet of the rounds to come. Counts as told.
  v1::Rounds TakeNews() { return std::exchange(news_, {}); }

  // Everything up to `position` is completed by `worker`. INVALID_ARGUMENT, and nothing changes, when that was not
  // granted, is no cycle of the round, or lies before what it reported earlier.
  absl::Status Complete(int worker, Position position);

  // With window 0: grant ahead for kAheadSeconds of rounds that take so long, so that short ones do not wait for the
  // network either.
  void set_round_seconds(double seconds) { round_seconds_ = seconds; }

  // Rounds and ticks completed by all workers.
  int64_t rounds_done() const;
  int64_t ticks_done() const { return least_done_; }
  // Of any worker, the most.
  int64_t most_ticks_done() const;
  std::optional<Position> done(int worker) const { return positions_[worker]; }
  // nullopt when there is no such cycle among the rounds that are laid out and not completed by all workers.
  std::optional<int64_t> TickOf(Position position) const;
  bool all_done() const { return exhausted_ && ticks_done() == next_tick_; }
  // Nothing that was granted is left to do.
  bool idle() const { return ticks_done() == granted_; }

  static constexpr int64_t kMinRounds = 5;
  // Of rounds of a second or more fewer are granted, and told behind those: what is told is done before anything else,
  // such as a checkpoint that somebody waits for.
  static constexpr double kLongSeconds = 1;
  static constexpr int64_t kMinLongRounds = 2, kLongToldAhead = 2;
  static constexpr int64_t kMaxRounds = 256;
  static constexpr double kAheadSeconds = 0.25;
  // So many rounds behind the last granted one are told, where there are so many: mini-batches are read ahead.
  static constexpr int64_t kToldAhead = 4;
  // However large the spec's window is, no more rounds than this are laid out ahead.
  static constexpr int64_t kMaxLookahead = 4096;

 private:
  struct Span {
    int64_t round = 0;
    int64_t first_tick = 0;
    int32_t cycles = 0;
  };

  int32_t CyclesOf(const v1::Round& round) const;
  bool ExtendByOne();
  void LayOut(int64_t round);
  bool long_rounds() const { return round_seconds_ >= kLongSeconds; }
  int64_t TargetTick();
  int64_t EndOfRound(int64_t round);
  Position PositionOf(int64_t tick) const;
  const Span* SpanOf(int64_t round) const;
  void SetDone(int worker, int64_t ticks);
  void Forget();

  const v1::Plan& plan_;
  const int64_t window_;
  RoundSource* const rounds_;
  v1::Rounds news_;            // Laid out, and not told yet.
  bool exhausted_ = false;     // There are no more rounds.
  std::deque<Span> spans_;     // From the slowest worker's round to the last one laid out.
  int64_t next_tick_ = 0;      // Behind the last span.
  int64_t granted_ = 0;        // Ticks granted so far.
  std::vector<int64_t> done_;  // Ticks completed, by worker.
  int64_t least_done_ = 0;     // Of done_,
  int at_least_done_;          // and how many workers are there: each report would ask all of them otherwise.
  std::vector<std::optional<Position>> positions_;
  double round_seconds_ = 0;
};

}  // namespace gpipe::orchestrator

#endif  // GPIPE_ORCHESTRATOR_SCHEDULING_CLOCK_WINDOW_H_
