#include <map>
#include <utility>

#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "orchestrator/jobs/job_state.h"

namespace gpipe::orchestrator {
namespace {

using v1::Job;

constexpr Job::State kAllStates[] = {Job::STATE_UNSPECIFIED, Job::STATE_QUEUED,   Job::STATE_STARTING,
                                     Job::STATE_RUNNING,     Job::STATE_PAUSED,   Job::STATE_SUCCEEDED,
                                     Job::STATE_FAILED,      Job::STATE_CANCELLED};

// Written apart from the table under test.
const std::map<std::pair<Job::State, JobEvent>, Job::State> kExpected = {
    {{Job::STATE_QUEUED, JobEvent::kPlaced}, Job::STATE_STARTING},
    {{Job::STATE_QUEUED, JobEvent::kFail}, Job::STATE_FAILED},
    {{Job::STATE_QUEUED, JobEvent::kCancel}, Job::STATE_CANCELLED},
    {{Job::STATE_STARTING, JobEvent::kPrepared}, Job::STATE_RUNNING},
    {{Job::STATE_STARTING, JobEvent::kFail}, Job::STATE_FAILED},
    {{Job::STATE_STARTING, JobEvent::kCancel}, Job::STATE_CANCELLED},
    {{Job::STATE_STARTING, JobEvent::kRequeue}, Job::STATE_QUEUED},
    {{Job::STATE_RUNNING, JobEvent::kPause}, Job::STATE_PAUSED},
    {{Job::STATE_RUNNING, JobEvent::kResume}, Job::STATE_RUNNING},
    {{Job::STATE_RUNNING, JobEvent::kSave}, Job::STATE_RUNNING},
    {{Job::STATE_RUNNING, JobEvent::kFinish}, Job::STATE_SUCCEEDED},
    {{Job::STATE_RUNNING, JobEvent::kFail}, Job::STATE_FAILED},
    {{Job::STATE_RUNNING, JobEvent::kCancel}, Job::STATE_CANCELLED},
    {{Job::STATE_RUNNING, JobEvent::kRequeue}, Job::STATE_QUEUED},
    {{Job::STATE_PAUSED, JobEvent::kPause}, Job::STATE_PAUSED},
    {{Job::STATE_PAUSED, JobEvent::kResume}, Job::STATE_RUNNING},
    {{Job::STATE_PAUSED, JobEvent::kFinish}, Job::STATE_SUCCEEDED},
    {{Job::STATE_PAUSED, JobEvent::kFail}, Job::STATE_FAILED},
    {{Job::STATE_PAUSED, JobEvent::kCancel}, Job::STATE_CANCELLED},
    {{Job::STATE_PAUSED, JobEvent::kRequeue}, Job::STATE_QUEUED},
};

TEST(JobStateTest, EveryPairOfStateAndEvent) {
  static_assert(std::size(kAllStates) == Job::State_ARRAYSIZE);
  for (Job::State state : kAllStates) {
    for (JobEvent event : kAllJobEvents) {
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

TEST(JobStateTest, TerminalStatesAreThoseWithoutAWayOut) {
  for (Job::State state : kAllStates) {
    if (state == Job::STATE_UNSPECIFIED) continue;
    bool way_out = false;
    for (JobEvent event : kAllJobEvents) way_out |= Transition(state, event).ok();
    EXPECT_EQ(IsTerminal(state), !way_out) << StateName(state);
  }
}

TEST(JobStateTest, RefusalSaysWhatIsWrong) {
  EXPECT_EQ(Transition(Job::STATE_SUCCEEDED, JobEvent::kCancel).status().message(),
            "a job that is SUCCEEDED cannot be cancelled");
}

TEST(JobStateTest, AStateOutsideTheEnumIsRefused) {
  EXPECT_FALSE(Transition(static_cast<Job::State>(99), JobEvent::kCancel).ok());
}

}  // namespace
}  // namespace gpipe::orchestrator
