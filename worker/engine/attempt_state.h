#ifndef GPIPE_WORKER_ENGINE_ATTEMPT_STATE_H_
#define GPIPE_WORKER_ENGINE_ATTEMPT_STATE_H_

#include <string_view>

#include "absl/status/statusor.h"

namespace gpipe::worker {

// The life of a worker's part of an attempt.
enum class AttemptState {
  kIdle,       // No attempt.
  kMeasuring,  // Measuring links with its neighbours; such an attempt does nothing else.
  kPreparing,  // Fetching files, building stages, loading weights.
  kJoining,    // Connecting with its peers.
  kRunning,    // Executing rounds as they are granted.
  kFinishing,  // Uploading results.
  kFinished,   // Waits for Release; its communicator stays, because peers may still be measuring or saying goodbye.
  kAborting,   // Failed or aborted: letting go of tensors, then waiting for Abort if that has not come yet.
};

enum class AttemptEvent {
  kPrepare,     // An assignment arrived.
  kMeasure,     // Its links are to be measured.
  kMeasured,    // They are.
  kBuilt,       // Stages, optimizer and data are there.
  kJoined,      // All peers are connected.
  kRoundsDone,  // The last round is done.
  kUploaded,    // The results are uploaded.
  kFail,        // Something here failed.
  kAbort,       // The orchestrator, or the loss of it, stops the attempt.
  kRelease,     // All workers of the attempt have finished, and this one has let go.
  kAborted,     // Everything is let go of, and the orchestrator knows why.
};

inline constexpr AttemptState kAllAttemptStates[] = {
    AttemptState::kIdle,    AttemptState::kMeasuring, AttemptState::kPreparing, AttemptState::kJoining,
    AttemptState::kRunning, AttemptState::kFinishing, AttemptState::kFinished,  AttemptState::kAborting};

inline constexpr AttemptEvent kAllAttemptEvents[] = {
    AttemptEvent::kPrepare, AttemptEvent::kMeasure,    AttemptEvent::kMeasured, AttemptEvent::kBuilt,
    AttemptEvent::kJoined,  AttemptEvent::kRoundsDone, AttemptEvent::kUploaded, AttemptEvent::kFail,
    AttemptEvent::kAbort,   AttemptEvent::kRelease,    AttemptEvent::kAborted};

// The only way an attempt changes its state. FAILED_PRECONDITION names state and event when it is not in the table.
absl::StatusOr<AttemptState> Transition(AttemptState from, AttemptEvent event);

std::string_view ToString(AttemptState state);
std::string_view ToString(AttemptEvent event);

}  // namespace gpipe::worker

#endif  // GPIPE_WORKER_ENGINE_ATTEMPT_STATE_H_
