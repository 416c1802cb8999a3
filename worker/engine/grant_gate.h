#ifndef GPIPE_WORKER_ENGINE_GRANT_GATE_H_
#define GPIPE_WORKER_ENGINE_GRANT_GATE_H_

#include <compare>
#include <cstdint>

#include "absl/base/thread_annotations.h"
#include "absl/functional/function_ref.h"
#include "absl/status/status.h"
#include "absl/synchronization/mutex.h"

namespace gpipe::worker {

// A clock cycle of a round. {-1, -1} comes before all of them.
struct Position {
  int64_t round = -1;
  int cycle = -1;

  auto operator<=>(const Position&) const = default;
};

// Where one attempt waits for its clock cycles. The engine's thread calls Wait; any thread the rest.
class GrantGate {
 public:
  // Called without a lock before the engine blocks, with the last clock cycle that is complete. Its error ends the
  // wait.
  using BeforeBlocking = absl::FunctionRef<absl::Status(Position complete)>;

  GrantGate() = default;
  GrantGate(const GrantGate&) = delete;
  GrantGate& operator=(const GrantGate&) = delete;

  // Waits until `wanted` is granted. All that comes before `wanted` is done: of what is granted meanwhile, clock cycles
  // without work for this worker count as complete, and `before_blocking` hears of each. The abort's status after
  // Abort.
  absl::Status Wait(Position wanted, BeforeBlocking before_blocking);

  // Grants up to, and including, `granted`. One that is older than the last changes nothing.
  void Advance(Position granted);

  // Wakes the engine; later waits fail with the same status. The first reason stays.
  void Abort(const absl::Status& reason);

 private:
  absl::Mutex mutex_;
  Position granted_ ABSL_GUARDED_BY(mutex_);
  absl::Status aborted_ ABSL_GUARDED_BY(mutex_);
};

}  // namespace gpipe::worker

#endif  // GPIPE_WORKER_ENGINE_GRANT_GATE_H_
