#include "worker/engine/link_probe.h"

#include <thread>

#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "tests/unit/worker/test_cluster.h"
#include "worker/comm/in_process_rendezvous.h"

namespace gpipe::worker {
namespace {

using testing::HasSubstr;

TEST(LinkProbe, ALineThroughTwoSizesIsLatencyAndBandwidth) {
  // 20 us and 1 GB/s.
  const v1::LinkSpeed speed = LineThrough({1000, 21e-6}, {1'000'000, 1020e-6});
  EXPECT_NEAR(speed.latency_seconds(), 20e-6, 1e-9);
  EXPECT_NEAR(speed.bytes_per_second(), 1e9, 1);
}

TEST(LinkProbe, NoiseMakesNoLatencyBelowZeroAndNoBandwidthWithoutEnd) {
  const v1::LinkSpeed noisy = LineThrough({1000, 2e-3}, {1'000'000, 1e-3});
  EXPECT_GE(noisy.latency_seconds(), 0);
  EXPECT_GT(noisy.bytes_per_second(), 0);
  EXPECT_LT(noisy.bytes_per_second(), 1.01e9);
  EXPECT_EQ(LineThrough({1000, 1e-9}, {1'000'000, 1e-3}).latency_seconds(), 0);
}

TEST(LinkProbe, EachLinkHasAChannelInEachDirection) {
  const std::vector<Channel> channels = LinkChannels(3);
  ASSERT_EQ(channels.size(), 4u);
  EXPECT_EQ(channels[2].sender, 1);
  EXPECT_EQ(channels[2].receiver, 2);
  EXPECT_EQ(channels[3].sender, 2);
  EXPECT_EQ(channels[3].receiver, 1);
  EXPECT_TRUE(LinkChannels(1).empty());
}

TEST(LinkProbe, MeasuresOverTheCommunicatorOfJobs) {
  constexpr int kWorkers = 3;
  InProcessRendezvous rendezvous;
  std::vector<absl::StatusOr<std::optional<v1::LinkSpeed>>> links(kWorkers, std::nullopt);
  const auto measure = [&](int rank) {
    RecordingSink sink;
    ActivityTracker activity(sink);
    Failpoint failpoint;
    AttemptControl control({}, sink);
    CommOptions options;
    options.rank = rank;
    options.size = kWorkers;
    options.data_address = "127.0.0.1";
    LinkProbe probe(options, [&](const CommOptions& given, Rendezvous&) { return Connect(given, rendezvous); },
                    {activity, failpoint, control});
    links[rank] = probe.Measure();
  };
  std::vector<std::thread> threads;
  for (int rank = 0; rank < kWorkers; ++rank) threads.emplace_back(measure, rank);
  for (std::thread& thread : threads) thread.join();
  for (int rank = 0; rank < kWorkers; ++rank) {
    ASSERT_TRUE(links[rank].ok()) << links[rank].status();
    ASSERT_EQ(links[rank]->has_value(), rank < kWorkers - 1);
    if (!links[rank]->has_value()) continue;
    EXPECT_LT((*links[rank])->latency_seconds(), 0.1);
    EXPECT_GT((*links[rank])->bytes_per_second(), 1e7);
  }
}

TEST(LinkProbe, AnEngineMeasuresAndThenRunsAJob) {
  TestCluster cluster(3);
  for (int workers = 1; workers <= 3; ++workers) {
    cluster.MeasureLinks(workers);
    for (int i = 0; i < workers; ++i) {
      const v1::LinksMeasured measured = cluster.WaitForLinks(i);
      EXPECT_EQ(measured.has_next(), i + 1 < workers);
      EXPECT_EQ(cluster.engine(i).state(), AttemptState::kFinished);
      EXPECT_EQ(cluster.engine(i).activity().phase(), v1::PHASE_MEASURING);
    }
    cluster.Release();
    for (int i = 0; i < workers; ++i) cluster.WaitForReleased(i);
    EXPECT_EQ(cluster.engine(0).state(), AttemptState::kIdle);
  }
  cluster.Prepare(TrainingSpec(1, v1::CHECKPOINT_NEVER), {{2, 2, 3}, {0, 1, 2}});
  cluster.GrantAll();
  cluster.Finish();
}

TEST(LinkProbe, AnAbortWakesEveryoneAndIsNoFailure) {
  TestCluster cluster(2, {{1, "worker.measuring=stop"}});  // Worker 0 waits for it.
  cluster.MeasureLinks(2);
  EXPECT_EQ(cluster.engine(1).state(), AttemptState::kMeasuring);
  cluster.Abort("worker 1 left");
  for (int i = 0; i < 2; ++i) {
    cluster.WaitForReleased(i);
    for (const v1::WorkerMessage& message : cluster.sink(i).messages()) EXPECT_FALSE(message.has_failed());
  }
}

TEST(LinkProbe, AFailureOfItsOwnIsTold) {
  TestCluster cluster(2, {{1, "worker.measuring=error"}});
  cluster.MeasureLinks(2);
  const v1::Failed failed = cluster.WaitForFailure(1);
  EXPECT_FALSE(failed.consequence());
  EXPECT_EQ(failed.activity().phase(), v1::PHASE_MEASURING);
  EXPECT_THAT(failed.status().message(), HasSubstr("worker.measuring"));
  cluster.Abort("worker 1 failed");
  for (int i = 0; i < 2; ++i) cluster.WaitForReleased(i);
}

TEST(LinkProbe, IsRefusedWhileAnAttemptIsUnderWay) {
  TestCluster cluster(1);
  cluster.Prepare(TrainingSpec(1, v1::CHECKPOINT_NEVER), {{7}, {0}});
  v1::MeasureLinks request;
  request.mutable_attempt()->set_job("other");
  cluster.engine(0).MeasureLinks(request);
  const v1::Failed failed = cluster.WaitForFailure(0);
  EXPECT_EQ(failed.attempt().job(), "other");
  EXPECT_THAT(failed.status().message(), HasSubstr("cannot measure links"));
  cluster.Abort("enough");
  cluster.WaitForReleased(0);
}

}  // namespace
}  // namespace gpipe::worker
