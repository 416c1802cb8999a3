#ifndef GPIPE_WORKER_ENGINE_FAILPOINT_H_
#define GPIPE_WORKER_ENGINE_FAILPOINT_H_

#include <string>
#include <string_view>

#include "absl/functional/function_ref.h"
#include "absl/status/statusor.h"

namespace gpipe::worker {

// Places where a test can make the worker fail. All of them, in the order of a job.
namespace failpoint {
inline constexpr std::string_view kMeasuring = "worker.measuring";
inline constexpr std::string_view kPreparing = "worker.preparing";
inline constexpr std::string_view kJoining = "worker.joining";
inline constexpr std::string_view kForward = "worker.forward";
inline constexpr std::string_view kBackward = "worker.backward";
inline constexpr std::string_view kOptimizer = "worker.optimizer";
inline constexpr std::string_view kCheckpoint = "worker.checkpoint";
// Of the thread that writes it, with the parameters handed over and the optimizer's state not yet.
inline constexpr std::string_view kCheckpointWrite = "worker.checkpoint_write";
inline constexpr std::string_view kEvaluation = "worker.evaluation";
inline constexpr std::string_view kFinishing = "worker.finishing";
inline constexpr std::string_view kAll[] = {kMeasuring, kPreparing,  kJoining,         kForward,    kBackward,
                                            kOptimizer, kCheckpoint, kCheckpointWrite, kEvaluation, kFinishing};
}  // namespace failpoint

// At most one failpoint, from GPIPE_FAILPOINT="<name>=stop|kill|error|nan|oom[@k]": it acts at its k-th hit (from 1,
// the default) and never again. Each name belongs to one thread, the engine's but for kCheckpointWrite.
class Failpoint {
 public:
  // Never acts.
  Failpoint() = default;

  // An empty text never acts. INVALID_ARGUMENT names what it does not understand.
  static absl::StatusOr<Failpoint> Parse(std::string_view text);

  bool armed() const { return !name_.empty(); }

  // The engine passes `name`. `stop` calls `block`, which returns the status of the abort that ends it; `kill` ends the
  // process as kill -9 does; `error` is INTERNAL, `oom` RESOURCE_EXHAUSTED. OK otherwise.
  absl::Status Hit(std::string_view name, absl::FunctionRef<absl::Status()> block);

  // Whether this hit of `name` should spoil its result with NaN; counts like Hit, for `nan` only.
  bool HitNan(std::string_view name);

 private:
  enum class Effect { kStop, kKill, kError, kNan, kOom };

  // Counts a hit of `name`; true at the k-th.
  bool Count(std::string_view name);
  static absl::StatusOr<Effect> ParseEffect(std::string_view text);

  std::string name_;
  Effect effect_ = Effect::kStop;
  int hits_left_ = 1;
};

}  // namespace gpipe::worker

#endif  // GPIPE_WORKER_ENGINE_FAILPOINT_H_
