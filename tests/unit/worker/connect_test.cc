#include "worker/comm/connect.h"

#include <ATen/ATen.h>

#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "common/string_view.h"
#include "gtest/gtest.h"
#include "worker/comm/in_process_rendezvous.h"
#include "worker/comm/reach.h"

namespace gpipe::worker {
namespace {

CommOptions TwoWorkers(int rank) {
  CommOptions options;
  options.rank = rank;
  options.size = 2;
  options.data_address = "127.0.0.1";
  options.channels = {{"edge0.forward", 0, 1}};
  return options;
}

// The keys of one attempt, kept apart like an orchestrator keeps them.
class AttemptRendezvous final : public Rendezvous {
 public:
  AttemptRendezvous(Rendezvous& all, int attempt) : all_(all), prefix_(absl::StrCat(attempt, "/")) {}
  absl::Status Put(std::string_view key, std::string_view value) override {
    return all_.Put(absl::StrCat(prefix_, AbslView(key)), value);
  }
  absl::StatusOr<std::string> Get(std::string_view key, absl::Duration timeout) override {
    return all_.Get(absl::StrCat(prefix_, AbslView(key)), timeout);
  }
  void Abort(const absl::Status& reason) override { all_.Abort(reason); }

 private:
  Rendezvous& all_;
  const std::string prefix_;
};

TEST(ConnectTest, AWorkerAloneNeedsNobody) {
  InProcessRendezvous rendezvous;
  auto comm = Connect(CommOptions(), rendezvous);
  ASSERT_TRUE(comm.ok()) << comm.status();
  const at::Tensor tensor = at::arange(3);
  EXPECT_TRUE((*comm)->AllReduceSum(tensor).ok());
  EXPECT_TRUE((*comm)->Broadcast(tensor, 0).ok());
  EXPECT_TRUE(tensor.equal(at::arange(3)));
  EXPECT_EQ(absl::StatusCode::kInvalidArgument, (*comm)->Send(0, tensor).status().code());
  (*comm)->Abort(absl::CancelledError("enough"));
  EXPECT_EQ(absl::CancelledError("enough"), (*comm)->AllReduceSum(tensor));
}

TEST(ConnectTest, NamesTheWorkerThatNeverJoins) {
  InProcessRendezvous rendezvous;
  CommOptions options = TwoWorkers(0);
  options.timeout = absl::Milliseconds(50);
  const absl::Status status = Connect(options, rendezvous).status();
  EXPECT_EQ(absl::StatusCode::kDeadlineExceeded, status.code());
  EXPECT_TRUE(absl::StrContains(status.message(), "worker 1")) << status;
}

TEST(ConnectTest, AbortOfTheRendezvousWakesIt) {
  InProcessRendezvous rendezvous;
  std::thread connecting(
      [&] { EXPECT_EQ(absl::CancelledError("enough"), Connect(TwoWorkers(0), rendezvous).status()); });
  EXPECT_TRUE(rendezvous.Get("join/0", absl::Seconds(60)).ok());  // It is under way.
  rendezvous.Abort(absl::CancelledError("enough"));
  connecting.join();
}

TEST(ConnectTest, AWorkerOfAnOldAttemptCannotJoin) {
  InProcessRendezvous all;
  AttemptRendezvous old_attempt(all, 1);
  AttemptRendezvous new_attempt(all, 2);
  CommOptions late = TwoWorkers(1);
  late.timeout = absl::Milliseconds(200);
  std::thread old_worker(
      [&] { EXPECT_EQ(absl::StatusCode::kDeadlineExceeded, Connect(late, old_attempt).status().code()); });
  std::thread peer([&] { EXPECT_TRUE(Connect(TwoWorkers(1), new_attempt).ok()); });
  EXPECT_TRUE(Connect(TwoWorkers(0), new_attempt).ok());
  peer.join();
  old_worker.join();
}

// Each of eight workers leaves as soon as it is connected; none takes that for a failure.
TEST(ConnectTest, NobodyIsBackBeforeAllAreConnected) {
  for (int round = 0; round < 10; ++round) {
    InProcessRendezvous rendezvous;
    std::vector<std::thread> workers;
    for (int rank = 0; rank < 8; ++rank) {
      workers.emplace_back([&, rank] {
        CommOptions options = TwoWorkers(rank);
        options.size = 8;
        const absl::Status status = Connect(options, rendezvous).status();
        EXPECT_TRUE(status.ok()) << status;
      });
    }
    for (std::thread& worker : workers) worker.join();
  }
}

TEST(ConnectTest, SaysWhichAddressIsWrong) {
  InProcessRendezvous rendezvous;
  std::thread peer([&] {
    CommOptions options = TwoWorkers(1);
    options.timeout = absl::Milliseconds(200);
    EXPECT_FALSE(Connect(options, rendezvous).ok());
  });
  CommOptions options = TwoWorkers(0);
  options.data_address = "192.0.2.1";  // Of a network for documentation: nobody's.
  const absl::Status status = Connect(options, rendezvous).status();
  EXPECT_TRUE(absl::StrContains(status.message(), "192.0.2.1")) << status;
  EXPECT_EQ(UnreachablePeer(status), 0) << "itself";
  peer.join();
}

TEST(ConnectTest, RefusesWrongOptions) {
  InProcessRendezvous rendezvous;
  const auto code = [&](auto change) {
    CommOptions options = TwoWorkers(0);
    change(options);
    return Connect(options, rendezvous).status().code();
  };
  EXPECT_EQ(absl::StatusCode::kInvalidArgument, code([](CommOptions& o) { o.rank = 2; }));
  EXPECT_EQ(absl::StatusCode::kInvalidArgument, code([](CommOptions& o) { o.size = 0; }));
  EXPECT_EQ(absl::StatusCode::kInvalidArgument, code([](CommOptions& o) { o.channels[0].receiver = 2; }));
  EXPECT_EQ(absl::StatusCode::kInvalidArgument, code([](CommOptions& o) { o.channels[0].receiver = 0; }));
  EXPECT_EQ(absl::StatusCode::kInvalidArgument, code([](CommOptions& o) { o.channels.push_back(o.channels[0]); }));
}

}  // namespace
}  // namespace gpipe::worker
