#include "worker/comm/reach.h"

#include <thread>
#include <vector>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "gtest/gtest.h"
#include "worker/comm/in_process_rendezvous.h"

namespace gpipe::worker {
namespace {

constexpr absl::Duration kPatience = absl::Seconds(30);

absl::Status Patient() { return absl::OkStatus(); }

// An endpoint at which nobody listens any more.
std::string GoneEndpoint() { return ReachListener::Create("127.0.0.1", 1)->endpoint(); }

TEST(ReachTest, WhoListensIsReachedAndWhoDoesNotIsNamed) {
  const auto one = ReachListener::Create("127.0.0.1", 3), other = ReachListener::Create("localhost", 3);
  ASSERT_TRUE(one.ok() && other.ok());
  EXPECT_TRUE(absl::StartsWith(one->endpoint(), "127.0.0.1 "));
  const auto unreachable =
      FindUnreachable({{0, one->endpoint()}, {1, GoneEndpoint()}, {2, other->endpoint()}, {3, ""}, {4, "no address"}},
                      kPatience, Patient);
  ASSERT_TRUE(unreachable.ok()) << unreachable.status();
  EXPECT_EQ(unreachable->size(), 2u);
  EXPECT_EQ(unreachable->at(1), "Connection refused");
  EXPECT_TRUE(unreachable->contains(4));
}

// The kernel takes connections until the queue of those who wait is full, and answers no more of them.
TEST(ReachTest, WhoNeverAnswersIsNamedWhenPatienceEnds) {
  const auto full = ReachListener::Create("127.0.0.1", 0);
  std::map<int, std::string> many;
  for (int i = 0; i < 20; ++i) many[i] = full->endpoint();
  const absl::Time begun = absl::Now();
  const auto unreachable = FindUnreachable(many, absl::Milliseconds(300), Patient);
  ASSERT_TRUE(unreachable.ok());
  ASSERT_FALSE(unreachable->empty());
  EXPECT_EQ(unreachable->begin()->second, "no answer");
  EXPECT_LT(absl::Now() - begun, absl::Seconds(10));
  const auto aborted = FindUnreachable(many, kPatience, [] { return absl::CancelledError("enough"); });
  EXPECT_EQ(aborted.status(), absl::CancelledError("enough"));
}

TEST(ReachTest, AnAddressOfNobodyHereIsAProblem) {
  EXPECT_EQ(DataAddressProblem("127.0.0.1"), "");
  EXPECT_TRUE(absl::StrContains(DataAddressProblem("192.0.2.1"), "cannot use data address '192.0.2.1': Cannot assign"));
  EXPECT_NE(DataAddressProblem("no.such.name.invalid"), "");
}

// Of all ranks. `wrong`: those at whose endpoint nobody listens.
std::vector<absl::Status> CheckAll(int size, const std::vector<int>& wrong) {
  InProcessRendezvous rendezvous;
  std::vector<ReachListener> listeners;
  std::map<int, std::string> endpoints;
  for (int rank = 0; rank < size; ++rank) {
    listeners.push_back(*ReachListener::Create("127.0.0.1", size));
    endpoints[rank] = listeners.back().endpoint();
  }
  for (const int rank : wrong) listeners[rank] = ReachListener();
  std::vector<absl::Status> statuses(size);
  std::vector<std::thread> workers;
  for (int rank = 0; rank < size; ++rank) {
    workers.emplace_back([&, rank] {
      std::map<int, std::string> others = endpoints;
      others.erase(rank);
      statuses[rank] = CheckReach(rank, size, others, rendezvous, absl::Now() + kPatience);
    });
  }
  for (std::thread& worker : workers) worker.join();
  return statuses;
}

TEST(ReachTest, AllAreOkWhenEverybodyReachesEverybody) {
  for (const absl::Status& status : CheckAll(4, {})) EXPECT_TRUE(status.ok()) << status;
}

TEST(ReachTest, AllKnowOfOneThatCannotBeReached) {
  const std::vector<absl::Status> statuses = CheckAll(3, {1});
  EXPECT_EQ(UnreachablePeer(statuses[0]), 1);
  EXPECT_TRUE(absl::StrContains(statuses[0].message(), "cannot connect with worker 1 at 127.0.0.1")) << statuses[0];
  EXPECT_TRUE(absl::IsUnavailable(statuses[1])) << "it reaches all itself, and is told";
  EXPECT_EQ(UnreachablePeer(statuses[1]), std::nullopt);
  EXPECT_EQ(UnreachablePeer(statuses[2]), 1);
}

TEST(ReachTest, OfSeveralTheOneThatMostMissIsNamed) {
  const std::vector<absl::Status> statuses = CheckAll(4, {0, 3});
  EXPECT_EQ(UnreachablePeer(statuses[1]), 0);
  EXPECT_EQ(UnreachablePeer(statuses[2]), 0);
  EXPECT_EQ(UnreachablePeer(statuses[0]), 3);
  EXPECT_EQ(UnreachablePeer(WithoutUnreachablePeer(statuses[0])), std::nullopt);
}

TEST(ReachTest, AnAbortOfTheRendezvousEndsTheWaitForTheOthers) {
  InProcessRendezvous rendezvous;
  std::thread waiting([&] {
    EXPECT_EQ(CheckReach(0, 2, {{1, ""}}, rendezvous, absl::Now() + kPatience), absl::CancelledError("enough"));
  });
  EXPECT_TRUE(rendezvous.Get("reached/0", kPatience).ok());
  rendezvous.Abort(absl::CancelledError("enough"));
  waiting.join();
}

}  // namespace
}  // namespace gpipe::worker
