#ifndef GPIPE_CLIENT_API_FOLLOW_H_
#define GPIPE_CLIENT_API_FOLLOW_H_

#include <functional>
#include <string>

#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "client/api/cluster_client.h"

namespace gpipe::client {

struct FollowOptions {
  // Also each clock cycle; what each stage did in each step.
  bool cycles = false;
  bool stages = false;
  // DEADLINE_EXCEEDED after so long.
  absl::Duration timeout = absl::InfiniteDuration();
  // Ends as soon as the job is so, too. Null: at its end only.
  std::function<bool(const v1::Job& job)> until = nullptr;
  // What is waited for, as DEADLINE_EXCEEDED says that it did not happen.
  std::string awaited = "end";
  // How long the orchestrator, once heard from, may be away before UNAVAILABLE.
  absl::Duration patience = absl::Seconds(30);
};

// Watches a job until it is in a terminal state, whichever, or as `until` says, and returns it then. A broken stream is
// opened again and goes on behind the last update, with `dropped` where what came between is no longer there. After a
// restart of the orchestrator it begins again with the job as it is then. `on_update` runs on the calling thread.
// CANCELLED when the client's token is stopped; the job goes on.
absl::StatusOr<v1::Job> FollowJob(ClusterClient& client, const std::string& id, const FollowOptions& options,
                                  const std::function<void(const v1::WatchJobResponse&)>& on_update);

}  // namespace gpipe::client

#endif  // GPIPE_CLIENT_API_FOLLOW_H_
