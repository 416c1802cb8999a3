#include "worker/comm/fault_injecting_communicator.h"

#include <ATen/ATen.h>

#include <thread>
#include <utility>

#include "absl/time/clock.h"
#include "gtest/gtest.h"
#include "worker/comm/in_process_communicator.h"
#include "worker/comm/solo_communicator.h"

namespace gpipe::worker {
namespace {

TEST(FaultInjectingCommunicatorTest, FailsAtItsOperationAndOnlyThere) {
  const absl::Status failure = absl::DataLossError("a torn cable");
  FaultInjectingCommunicator comm(std::make_unique<SoloCommunicator>(),
                                  Fault{.kind = Fault::Kind::kFail, .operation = 1, .status = failure});
  const at::Tensor tensor = at::ones({1});
  EXPECT_TRUE(comm.AllReduceSum(tensor).ok());
  EXPECT_EQ(failure, comm.Broadcast(tensor, 0));
  EXPECT_TRUE(comm.AllReduceSum(tensor).ok());
}

TEST(FaultInjectingCommunicatorTest, HangsUntilTheAbort) {
  FaultInjectingCommunicator comm(std::make_unique<SoloCommunicator>(), Fault{.kind = Fault::Kind::kHang});
  std::thread aborter([&] { comm.Abort(absl::CancelledError("enough")); });
  EXPECT_EQ(absl::CancelledError("enough"), comm.AllReduceSum(at::ones({1})));
  aborter.join();
}

TEST(FaultInjectingCommunicatorTest, DelaysAndGoesOn) {
  const absl::Duration delay = absl::Milliseconds(30);
  FaultInjectingCommunicator comm(std::make_unique<SoloCommunicator>(),
                                  Fault{.kind = Fault::Kind::kDelay, .delay = delay});
  const absl::Time start = absl::Now();
  EXPECT_TRUE(comm.AllReduceSum(at::ones({1})).ok());
  EXPECT_GE(absl::Now() - start, delay);
}

// A failure of one end reaches the other when it goes away, as a consequence.
TEST(FaultInjectingCommunicatorTest, ThePeerOfAFailedOneIsToldByItsEnd) {
  auto comms = MakeInProcessCommunicators(2, {{"edge0.forward", 0, 1}});
  ASSERT_TRUE(comms.ok());
  std::unique_ptr<Communicator> receiver = std::move((*comms)[1]);
  std::thread sender([first = std::move((*comms)[0])]() mutable {
    FaultInjectingCommunicator comm(std::move(first), Fault{.kind = Fault::Kind::kFail});
    EXPECT_FALSE(comm.Send(0, at::ones({1})).ok());
  });
  const at::Tensor tensor = at::zeros({1});
  auto work = receiver->Receive(0, tensor);
  EXPECT_EQ(absl::StatusCode::kUnavailable, work.ok() ? (*work)->Wait().code() : work.status().code());
  sender.join();
}

}  // namespace
}  // namespace gpipe::worker
