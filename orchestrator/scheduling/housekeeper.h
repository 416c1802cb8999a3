#ifndef GPIPE_ORCHESTRATOR_SCHEDULING_HOUSEKEEPER_H_
#define GPIPE_ORCHESTRATOR_SCHEDULING_HOUSEKEEPER_H_

#include <cstdint>
#include <functional>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/time/time.h"
#include "orchestrator/artifacts/artifact_store.h"
#include "orchestrator/cluster/background.h"
#include "orchestrator/cluster/event_loop.h"
#include "orchestrator/jobs/store.h"

namespace gpipe::orchestrator {

// Keeps the disk from filling with what nobody has any more: files that no job has, jobs that ended long ago. For the
// loop's thread.
//
// Files go on the thread that also makes them of what workers hand over, one after the other: what was made before has
// been told to the loop when the loop is asked which files no job has, and nothing is made until they are gone. What
// clients give meanwhile is claimed (ArtifactStore).
class Housekeeper {
 public:
  struct Options {
    int64_t most_jobs = 10'000;                      // Of those that are over, the ones submitted last are kept.
    absl::Duration keep = absl::InfiniteDuration();  // For so long after their end.
  };
  struct Parts {
    EventLoop* loop;
    Store* store;
    ArtifactStore* artifacts;
    Background* merges;
    std::function<void(const std::string& id)> on_deleted = {};  // A job; null: nobody asks.
  };
  static constexpr absl::Duration kLookForJobs = absl::Minutes(1);
  static constexpr absl::Duration kLookForFiles = absl::Hours(1);
  // Of each look, and of the metrics that go at once: the loop has other things to do.
  static constexpr int64_t kMostJobs = 16, kMostMetrics = 20'000;
  static constexpr size_t kMostFiles = 256;

  // All parts must outlive the housekeeper.
  Housekeeper(const Parts& parts, const Options& options) : parts_(parts), options_(options) {}
  Housekeeper(const Housekeeper&) = delete;
  Housekeeper& operator=(const Housekeeper&) = delete;

  // Begins to look for what has expired.
  void Start();

  // Once the batch is stored, what was dropped is removed, unless another job has it. What is not, because too much
  // work waits, is found by a later look.
  void Remove(std::vector<Store::Dropped> dropped);

  // Forgets a job that is over, with its files, and calls `done` when that is stored. NOT_FOUND; FAILED_PRECONDITION:
  // it is not over.
  void Delete(const std::string& id, std::function<void(const absl::Status&)> done);

 private:
  void ForgetJobs();
  void ForgetFiles();
  void DeleteSome(const std::string& id, std::function<void(const absl::Status&)> done);

  const Parts parts_;
  const Options options_;
};

}  // namespace gpipe::orchestrator

#endif  // GPIPE_ORCHESTRATOR_SCHEDULING_HOUSEKEEPER_H_
