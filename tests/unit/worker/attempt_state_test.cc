#include "worker/engine/attempt_state.h"

#include <map>
#include <utility>

#include "gtest/gtest.h"

namespace gpipe::worker {
namespace {

using State = AttemptState;
using Event = AttemptEvent;

TEST(AttemptState, EveryPairOfStateAndEventIsAsListed) {
  const std::map<std::pair<State, Event>, State> expected = {
      {{State::kIdle, Event::kPrepare}, State::kPreparing},
      {{State::kIdle, Event::kMeasure}, State::kMeasuring},
      {{State::kMeasuring, Event::kMeasured}, State::kFinished},
      {{State::kMeasuring, Event::kFail}, State::kAborting},
      {{State::kMeasuring, Event::kAbort}, State::kAborting},
      {{State::kPreparing, Event::kBuilt}, State::kJoining},
      {{State::kPreparing, Event::kFail}, State::kAborting},
      {{State::kPreparing, Event::kAbort}, State::kAborting},
      {{State::kJoining, Event::kJoined}, State::kRunning},
      {{State::kJoining, Event::kFail}, State::kAborting},
      {{State::kJoining, Event::kAbort}, State::kAborting},
      {{State::kRunning, Event::kRoundsDone}, State::kFinishing},
      {{State::kRunning, Event::kFail}, State::kAborting},
      {{State::kRunning, Event::kAbort}, State::kAborting},
      {{State::kFinishing, Event::kUploaded}, State::kFinished},
      {{State::kFinishing, Event::kFail}, State::kAborting},
      {{State::kFinishing, Event::kAbort}, State::kAborting},
      {{State::kFinished, Event::kRelease}, State::kIdle},
      {{State::kFinished, Event::kAbort}, State::kAborting},
      {{State::kAborting, Event::kAbort}, State::kAborting},
      {{State::kAborting, Event::kAborted}, State::kIdle},
  };
  for (State from : kAllAttemptStates) {
    for (Event event : kAllAttemptEvents) {
      const absl::StatusOr<State> to = Transition(from, event);
      const auto listed = expected.find({from, event});
      if (listed != expected.end()) {
        ASSERT_TRUE(to.ok()) << to.status();
        EXPECT_EQ(*to, listed->second) << ToString(from) << ", " << ToString(event);
      } else {
        EXPECT_EQ(to.status().code(), absl::StatusCode::kFailedPrecondition) << ToString(from) << ToString(event);
      }
    }
  }
}

TEST(AttemptState, EveryStateLeadsBackToIdle) {
  for (State state : kAllAttemptStates) {
    if (state == State::kIdle) continue;
    State at = state;
    if (at != State::kAborting) at = *Transition(at, Event::kAbort);
    EXPECT_EQ(*Transition(at, Event::kAborted), State::kIdle);
  }
}

}  // namespace
}  // namespace gpipe::worker
