#include "common/string_view.h"
#include "common/version.h"
#include "tests/unit/orchestrator/scheduling_testing.h"

namespace gpipe::orchestrator {
namespace {

using v1::OrchestratorMessage;
using v1::Worker;

using ClusterTest = SchedulingTest;

TEST_F(ClusterTest, HelloIsAnsweredByWelcome) {
  FakeWorker& worker = Connect("w0");
  auto welcome = worker.Take(OrchestratorMessage::kWelcome);
  ASSERT_TRUE(welcome.has_value());
  EXPECT_EQ(welcome->welcome().heartbeat_millis(), 1000);
  EXPECT_EQ(welcome->welcome().lease_millis(), 5000);
  EXPECT_EQ(StateOf("w0"), Worker::STATE_IDLE);
}

TEST_F(ClusterTest, ANameIsFreeAgainWhenItsWorkerIsLost) {
  FakeWorker& first = Connect("w0");
  FakeWorker& second = Connect("w0");
  ASSERT_TRUE(second.closed.has_value());
  EXPECT_TRUE(absl::IsAlreadyExists(*second.closed));
  Disconnect(second);
  EXPECT_EQ(StateOf("w0"), Worker::STATE_IDLE);
  Disconnect(first);
  EXPECT_EQ(StateOf("w0"), Worker::STATE_LOST);
  EXPECT_FALSE(Connect("w0").closed.has_value());
  EXPECT_EQ(StateOf("w0"), Worker::STATE_IDLE);
}

TEST_F(ClusterTest, BadHellosAreRefusedByField) {
  for (const char* name : {"", "a b", "../x"}) {
    FakeWorker& worker = Connect(name);
    ASSERT_TRUE(worker.closed.has_value()) << name;
    EXPECT_TRUE(absl::IsInvalidArgument(*worker.closed));
  }
  for (const char* device : {"", "tpu", "cuda:", "cuda:x", "cuda:12345"}) {
    EXPECT_TRUE(Connect("w", device).closed.has_value()) << device;
  }
  EXPECT_FALSE(Connect("w", "cuda:7").closed.has_value());
}

TEST_F(ClusterTest, WhatAWorkerComputesWithIsToldIfItIsSane) {
  using Software = std::map<std::string, std::string>;
  v1::Hello hello = (Connect("w0"), parts_->cluster.registry().Find("w0")->hello);
  hello.set_name("w1");
  const auto join = [&](const Software& software) {
    hello.mutable_software()->clear();
    hello.mutable_software()->insert(software.begin(), software.end());
    return Do([&] { return parts_->cluster.registry().Join(hello, std::make_shared<FakeWorker>(), clock_.Now()); });
  };
  Software many;
  for (int i = 0; i < 100; ++i) many[absl::StrCat("library_", i)] = "1";
  for (const Software& software :
       {Software{{"", "1"}}, Software{{"a b", "1"}}, Software{{"cudnn", ""}}, Software{{"cudnn", "\x1b[31m"}},
        Software{{"cudnn", std::string(65, '9')}}, Software{{std::string(33, 'x'), "1"}}, many}) {
    const absl::Status refused = join(software).status();
    EXPECT_TRUE(absl::IsInvalidArgument(refused)) << refused;
    EXPECT_NE(std::string(refused.message()).find("hello.software"), std::string::npos) << refused;
  }
  ASSERT_TRUE(join({{"cudnn", "9.19.0"}, {"driver", "580.65.06"}}).ok());
  const v1::Worker worker = DescribeWorker(*parts_->cluster.registry().Find("w1"), clock_.Now());
  EXPECT_EQ(worker.hello().software().at("cudnn"), "9.19.0");
}

TEST_F(ClusterTest, AHealthThatCannotBeTrueEndsTheSession) {
  FakeWorker& worker = Connect("w0");
  v1::WorkerMessage message;
  message.mutable_heartbeat()->mutable_use()->mutable_gpu()->set_temperature_celsius(54);
  Say(worker, message);
  EXPECT_EQ(DescribeWorker(*parts_->cluster.registry().Find("w0"), clock_.Now()).use().gpu().temperature_celsius(), 54);
  message.mutable_heartbeat()->mutable_use()->mutable_gpu()->add_slowed_by("magic");
  Say(worker, message);
  EXPECT_EQ(StateOf("w0"), Worker::STATE_LOST);
  EXPECT_TRUE(worker.closed.has_value());
}

TEST_F(ClusterTest, AWorkerOfAnotherVersionIsRefusedWithBothNamed) {
  v1::Hello hello = (Connect("w0"), parts_->cluster.registry().Find("w0")->hello);
  hello.set_name("w1");
  const auto join = [&](std::string_view version) {
    hello.set_version(std::string(version));
    return Do([&] { return parts_->cluster.registry().Join(hello, std::make_shared<FakeWorker>(), clock_.Now()); });
  };
  const absl::Status refused = join("0.0.9").status();
  EXPECT_TRUE(absl::IsFailedPrecondition(refused)) << refused;
  EXPECT_EQ(refused.message(), absl::StrCat("the worker 'w1' is gpipe 0.0.9, the orchestrator ", AbslView(kVersion),
                                            ": install the same"));
  EXPECT_EQ(parts_->cluster.registry().Find("w1"), nullptr);
  EXPECT_TRUE(join(kVersion).ok());
}

TEST_F(ClusterTest, AWorkerSaysLittleOfItself) {
  v1::Hello hello = (Connect("w0"), parts_->cluster.registry().Find("w0")->hello);
  hello.set_name("w1");
  (*hello.mutable_software())["torch"] = std::string(20'000, 'x');
  const auto joined =
      Do([&] { return parts_->cluster.registry().Join(hello, std::make_shared<FakeWorker>(), clock_.Now()); });
  EXPECT_TRUE(absl::IsInvalidArgument(joined.status())) << joined.status();
  EXPECT_EQ(parts_->cluster.registry().Find("w1"), nullptr);
}

TEST_F(ClusterTest, TheFirstMessageMustBeHello) {
  auto worker = std::make_shared<FakeWorker>();
  worker->session = next_session_++;
  workers_.push_back(worker);
  parts_->cluster.OnOpened(worker->session, worker);
  Say(*worker, v1::WorkerMessage());
  ASSERT_TRUE(worker->closed.has_value());
  EXPECT_TRUE(absl::IsInvalidArgument(*worker->closed));
}

TEST_F(ClusterTest, ASessionWithoutHelloIsEnded) {
  auto worker = std::make_shared<FakeWorker>();
  worker->session = next_session_++;
  workers_.push_back(worker);
  parts_->cluster.OnOpened(worker->session, worker);
  Pass(absl::Seconds(7), {});
  EXPECT_TRUE(worker->closed.has_value());
}

TEST_F(ClusterTest, HeartbeatsAreAnsweredAndRenewTheLease) {
  FakeWorker& worker = Connect("w0");
  Pass(absl::Seconds(20), {&worker});
  EXPECT_EQ(StateOf("w0"), Worker::STATE_IDLE);
  EXPECT_TRUE(worker.Has(OrchestratorMessage::kAlive));
}

TEST_F(ClusterTest, ASilentWorkerIsLostAfterItsLease) {
  FakeWorker& silent = Connect("silent");
  FakeWorker& alive = Connect("alive");
  Pass(absl::Seconds(4), {&alive});
  EXPECT_EQ(StateOf("silent"), Worker::STATE_IDLE);
  Pass(absl::Seconds(4), {&alive});
  EXPECT_EQ(StateOf("silent"), Worker::STATE_LOST);
  EXPECT_TRUE(silent.closed.has_value());
  EXPECT_EQ(StateOf("alive"), Worker::STATE_IDLE);
}

TEST_F(ClusterTest, WhenTheOrchestratorItselfWasStoppedNobodyIsLost) {
  Connect("w0");
  clock_.Advance(absl::Hours(1));
  Settle();
  EXPECT_EQ(StateOf("w0"), Worker::STATE_IDLE);
}

TEST_F(ClusterTest, AnIdleWorkerMayLeaveAtOnce) {
  FakeWorker& worker = Connect("w0");
  SayLeaving(worker);
  EXPECT_TRUE(worker.Has(OrchestratorMessage::kLeaveGranted));
  EXPECT_EQ(StateOf("w0"), Worker::STATE_LEAVING);
  Disconnect(worker);
  EXPECT_EQ(StateOf("w0"), Worker::STATE_LOST);
}

TEST_F(ClusterTest, MessagesThatMeanNothingAreIgnored) {
  FakeWorker& worker = Connect("w0");
  Say(worker, v1::WorkerMessage());
  v1::WorkerMessage message;
  message.mutable_progress();
  Say(worker, message);
  message.mutable_released()->mutable_attempt()->set_job("nobody");
  Say(worker, message);
  message.mutable_inspected()->set_id(77);
  Say(worker, message);
  message.mutable_hello()->set_name("other");
  Say(worker, message);
  EXPECT_EQ(StateOf("w0"), Worker::STATE_IDLE);
}

TEST_F(ClusterTest, OnlySoManyLostWorkersAreKept) {
  for (int i = 0; i < 150; ++i) Disconnect(Connect("w" + std::to_string(i)));
  Connect("last");
  EXPECT_EQ(parts_->cluster.registry().All().size(), WorkerRegistry::kMaxLost + 1);
}

TEST_F(ClusterTest, AfterShutdownSessionsEnd) {
  FakeWorker& worker = Connect("w0");
  Do([&] { return parts_->cluster.Shutdown(absl::UnavailableError("bye")), 0; });
  ASSERT_TRUE(worker.closed.has_value());
  EXPECT_TRUE(absl::IsUnavailable(*worker.closed));
  EXPECT_TRUE(Connect("w1").closed.has_value());
}

}  // namespace
}  // namespace gpipe::orchestrator
