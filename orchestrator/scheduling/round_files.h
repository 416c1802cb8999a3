#ifndef GPIPE_ORCHESTRATOR_SCHEDULING_ROUND_FILES_H_
#define GPIPE_ORCHESTRATOR_SCHEDULING_ROUND_FILES_H_

#include <deque>
#include <vector>

#include "absl/time/time.h"
#include "gpipe/v1/pipeline_service.pb.h"
#include "gpipe/v1/worker_session.pb.h"
#include "orchestrator/jobs/store.h"

namespace gpipe::orchestrator {

// The files of the rounds that a client asks of one job, where they go through the orchestrator: no job has them, and
// as many as there are mini-batches would fill the disk before an upload that nobody wanted any more is removed
// (ArtifactStore::kClaimLasts). Pure; one thread.
class RoundFiles {
 public:
  // For so long after a round was answered a client can fetch what it made.
  static constexpr absl::Duration kLast = absl::Minutes(10);
  // They go together, as often as this: other work waits for that.
  static constexpr absl::Duration kEvery = absl::Minutes(1);
  // Rounds whose files are remembered; of those before, files go with abandoned uploads.
  static constexpr size_t kMostRounds = 100'000;

  // A round was asked for, with this to read, if anything.
  void Ask(const v1::ArtifactRef& data, absl::Time now);
  // The first of those that were not is answered.
  void Answer(const v1::RoundAnswer& answer, absl::Time now);

  // What nobody needs any more, but who has claimed it since; none before it is time again.
  std::vector<Store::Dropped> TakeOld(absl::Time now);

 private:
  struct Asked {
    v1::ArtifactRef data;
    absl::Time when;
  };
  struct Answered {
    absl::Time when;
    Store::Dropped files;
  };
  void Add(absl::Time now, Store::Dropped files);

  std::deque<Asked> asked_;
  std::deque<Answered> answered_;
  absl::Time taken_ = absl::InfinitePast();
};

}  // namespace gpipe::orchestrator

#endif  // GPIPE_ORCHESTRATOR_SCHEDULING_ROUND_FILES_H_
