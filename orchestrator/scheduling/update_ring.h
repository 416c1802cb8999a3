#ifndef GPIPE_ORCHESTRATOR_SCHEDULING_UPDATE_RING_H_
#define GPIPE_ORCHESTRATOR_SCHEDULING_UPDATE_RING_H_

#include <cstddef>
#include <cstdint>
#include <deque>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "gpipe/v1/pipeline_service.pb.h"

namespace gpipe::orchestrator {

// One update of a job, the same object for all who watch it.
using JobUpdate = std::shared_ptr<const v1::WatchJobResponse>;

// Numbers the updates of one job and keeps the last ones, so that a watcher whose stream broke goes on where it was:
// at most kMaxUpdates of at most kMaxBytes. Of the job itself only that it changed is kept: who missed several of its
// states gets the newest. Clock cycles and activities are not kept. One thread.
class UpdateRing {
 public:
  static constexpr size_t kMaxUpdates = 4096;
  static constexpr size_t kMaxBytes = size_t{1} << 20;

  UpdateRing();
  UpdateRing(const UpdateRing&) = delete;
  UpdateRing& operator=(const UpdateRing&) = delete;

  // The update with its number, kept if its kind is.
  JobUpdate Add(v1::WatchJobResponse update);
  // The job has changed, and nobody watches.
  void NoteJob() { Keep(nullptr, 0); }

  // To go on after the newest update.
  std::string Token() const { return TokenFor(sequence_); }

  // What came after the update that a token was with.
  struct Missed {
    bool known = false;  // Else the token is of another job or process: begin anew.
    // In order, and how many of them are no longer there; with `job`, as it is now, where it last changed.
    std::vector<JobUpdate> updates;
  };
  Missed After(std::string_view token, const v1::Job& job) const;

 private:
  struct Kept {
    JobUpdate update;  // Null: the job.
    size_t bytes = 0;
  };

  void Keep(JobUpdate update, size_t bytes);
  std::string TokenFor(int64_t sequence) const;
  JobUpdate WithToken(v1::WatchJobResponse update, int64_t sequence) const;
  int64_t first_kept() const { return sequence_ - static_cast<int64_t>(kept_.size()) + 1; }

  const std::string epoch_;  // Of this job in this process.
  int64_t sequence_ = 0;     // Of the newest one.
  std::deque<Kept> kept_;    // The newest ones, with the numbers up to sequence_.
  size_t bytes_ = 0;
};

}  // namespace gpipe::orchestrator

#endif  // GPIPE_ORCHESTRATOR_SCHEDULING_UPDATE_RING_H_
