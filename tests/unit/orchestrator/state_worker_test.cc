#include <map>
#include <utility>

#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "orchestrator/jobs/worker_state.h"

namespace gpipe::orchestrator {
namespace {

using v1::Worker;

constexpr Worker::State kAllStates[] = {Worker::STATE_UNSPECIFIED, Worker::STATE_IDLE,    Worker::STATE_ASSIGNED,
                                        Worker::STATE_RELEASING,   Worker::STATE_LEAVING, Worker::STATE_LOST,
                                        Worker::STATE_UNREACHABLE};

// Written apart from the table under test.
const std::map<std::pair<Worker::State, WorkerEvent>, Worker::State> kExpected = {
    {{Worker::STATE_UNSPECIFIED, WorkerEvent::kHello}, Worker::STATE_IDLE},
    {{Worker::STATE_LOST, WorkerEvent::kHello}, Worker::STATE_IDLE},
    {{Worker::STATE_LOST, WorkerEvent::kLost}, Worker::STATE_LOST},
    {{Worker::STATE_IDLE, WorkerEvent::kAssign}, Worker::STATE_ASSIGNED},
    {{Worker::STATE_IDLE, WorkerEvent::kLeave}, Worker::STATE_LEAVING},
    {{Worker::STATE_IDLE, WorkerEvent::kLost}, Worker::STATE_LOST},
    {{Worker::STATE_ASSIGNED, WorkerEvent::kAbort}, Worker::STATE_RELEASING},
    {{Worker::STATE_ASSIGNED, WorkerEvent::kRelease}, Worker::STATE_RELEASING},
    {{Worker::STATE_ASSIGNED, WorkerEvent::kLeave}, Worker::STATE_LEAVING},
    {{Worker::STATE_ASSIGNED, WorkerEvent::kLost}, Worker::STATE_LOST},
    {{Worker::STATE_RELEASING, WorkerEvent::kAbort}, Worker::STATE_RELEASING},
    {{Worker::STATE_RELEASING, WorkerEvent::kReleased}, Worker::STATE_IDLE},
    {{Worker::STATE_RELEASING, WorkerEvent::kLeave}, Worker::STATE_LEAVING},
    {{Worker::STATE_RELEASING, WorkerEvent::kLost}, Worker::STATE_LOST},
    {{Worker::STATE_LEAVING, WorkerEvent::kAbort}, Worker::STATE_LEAVING},
    {{Worker::STATE_LEAVING, WorkerEvent::kRelease}, Worker::STATE_LEAVING},
    {{Worker::STATE_LEAVING, WorkerEvent::kReleased}, Worker::STATE_LEAVING},
    {{Worker::STATE_LEAVING, WorkerEvent::kLeave}, Worker::STATE_LEAVING},
    {{Worker::STATE_LEAVING, WorkerEvent::kLost}, Worker::STATE_LOST},
    {{Worker::STATE_IDLE, WorkerEvent::kUnreachable}, Worker::STATE_UNREACHABLE},
    {{Worker::STATE_ASSIGNED, WorkerEvent::kUnreachable}, Worker::STATE_UNREACHABLE},
    {{Worker::STATE_RELEASING, WorkerEvent::kUnreachable}, Worker::STATE_UNREACHABLE},
    {{Worker::STATE_LEAVING, WorkerEvent::kUnreachable}, Worker::STATE_LEAVING},
    {{Worker::STATE_UNREACHABLE, WorkerEvent::kUnreachable}, Worker::STATE_UNREACHABLE},
    {{Worker::STATE_UNREACHABLE, WorkerEvent::kAbort}, Worker::STATE_UNREACHABLE},
    {{Worker::STATE_UNREACHABLE, WorkerEvent::kRelease}, Worker::STATE_UNREACHABLE},
    {{Worker::STATE_UNREACHABLE, WorkerEvent::kReleased}, Worker::STATE_UNREACHABLE},
    {{Worker::STATE_UNREACHABLE, WorkerEvent::kTryAgain}, Worker::STATE_IDLE},
    {{Worker::STATE_UNREACHABLE, WorkerEvent::kLeave}, Worker::STATE_LEAVING},
    {{Worker::STATE_UNREACHABLE, WorkerEvent::kLost}, Worker::STATE_LOST},
};

TEST(WorkerStateTest, EveryPairOfStateAndEvent) {
  static_assert(std::size(kAllStates) == Worker::State_ARRAYSIZE);
  for (Worker::State state : kAllStates) {
    for (WorkerEvent event : kAllWorkerEvents) {
      SCOPED_TRACE(testing::Message() << StateName(state) << " + " << EventName(event));
      auto after = Transition(state, event);
      auto expected = kExpected.find({state, event});
      if (expected != kExpected.end()) {
        ASSERT_TRUE(after.ok()) << after.status();
        EXPECT_EQ(*after, expected->second);
      } else {
        EXPECT_EQ(after.status().code(), absl::StatusCode::kFailedPrecondition);
      }
    }
  }
}

TEST(WorkerStateTest, NoStateButLostLetsASecondProcessIn) {
  for (Worker::State state : kAllStates) {
    bool free = state == Worker::STATE_UNSPECIFIED || state == Worker::STATE_LOST;
    EXPECT_EQ(Transition(state, WorkerEvent::kHello).ok(), free) << StateName(state);
  }
}

TEST(WorkerStateTest, RefusalSaysWhatIsWrong) {
  EXPECT_EQ(Transition(Worker::STATE_LOST, WorkerEvent::kAssign).status().message(),
            "a worker that is LOST cannot be assigned");
}

}  // namespace
}  // namespace gpipe::orchestrator
