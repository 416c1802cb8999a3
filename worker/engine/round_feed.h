#ifndef GPIPE_WORKER_ENGINE_ROUND_FEED_H_
#define GPIPE_WORKER_ENGINE_ROUND_FEED_H_

#include <array>
#include <cstdint>
#include <deque>
#include <optional>

#include "absl/base/thread_annotations.h"
#include "absl/status/statusor.h"
#include "absl/synchronization/mutex.h"
#include "gpipe/v1/worker_session.pb.h"

namespace gpipe::worker {

// The rounds of one attempt, as the orchestrator tells them: a worker knows no others. Two walk along them, each at its
// own pace, and a round is kept until both are past it. Any thread may call any method; Next is called by one thread
// for each walker.
class RoundFeed {
 public:
  enum class Walker { kEngine, kDataReader };

  // More rounds are not kept: an orchestrator tells no further ahead.
  static constexpr size_t kMost = 8192;

  RoundFeed() = default;
  RoundFeed(const RoundFeed&) = delete;
  RoundFeed& operator=(const RoundFeed&) = delete;

  // What comes after the rounds that were told before. Where that makes no sense, whoever walks on gets
  // INTERNAL instead.
  void Tell(const v1::Rounds& rounds);

  // The walker's next round; nullopt when there are no more. Waits until that is known; after Abort its status.
  absl::StatusOr<std::optional<v1::Round>> Next(Walker walker);
  // The same without waiting: also nullopt where it is not known yet.
  absl::StatusOr<std::optional<v1::Round>> TryNext(Walker walker);

  // Programs that were told with the rounds so far, and not taken yet.
  google::protobuf::RepeatedPtrField<v1::Program> TakePrograms();

  // This one walks no further; its Next returns nullopt from now on.
  void Leave(Walker walker);

  // How many rounds the attempt has; nullopt while that is not known.
  std::optional<int64_t> count() const;

  // Wakes the walkers. The first reason stays.
  void Abort(const absl::Status& reason);

 private:
  static constexpr int64_t kGone = -1;

  absl::Status Check(const v1::Rounds& rounds) const ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  bool Knows(int64_t position) const ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_) {
    return position == kGone || complete_ || position < end_ || !aborted_.ok();
  }
  absl::StatusOr<std::optional<v1::Round>> TakeNext(Walker walker) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  void Forget() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);

  mutable absl::Mutex mutex_;
  std::deque<v1::Round> rounds_ ABSL_GUARDED_BY(mutex_);               // From the slower walker's on.
  int64_t end_ ABSL_GUARDED_BY(mutex_) = 0;                            // Behind the last one told.
  bool complete_ ABSL_GUARDED_BY(mutex_) = false;                      // None will follow those.
  std::array<int64_t, 2> positions_ ABSL_GUARDED_BY(mutex_) = {0, 0};  // By walker: its next round, or kGone.
  google::protobuf::RepeatedPtrField<v1::Program> programs_ ABSL_GUARDED_BY(mutex_);
  absl::Status aborted_ ABSL_GUARDED_BY(mutex_);
};

}  // namespace gpipe::worker

#endif  // GPIPE_WORKER_ENGINE_ROUND_FEED_H_
