#include "orchestrator/scheduling/link_meter.h"

#include <cmath>

#include "tests/unit/orchestrator/scheduling_testing.h"

namespace gpipe::orchestrator {
namespace {

using testing::ElementsAre;
using v1::Job;
using v1::OrchestratorMessage;
using v1::Worker;

class LinkMeterTest : public SchedulingTest {
 protected:
  static v1::JobSpec UnbalancedSpec() {
    v1::JobSpec spec = ParseSpec(kTrainYaml);
    spec.mutable_pipeline()->clear_balance();
    spec.mutable_pipeline()->set_workers(2);
    return spec;
  }
  // A job without balance on w0 and w1, which are asked for their link and do not answer by themselves.
  void BeginMeasuring() {
    answer_links_ = false;
    w0_ = &Connect("w0");
    w1_ = &Connect("w1");
    id_ = Submit(UnbalancedSpec())->id();
    for (FakeWorker* worker : {w0_, w1_}) TakeRequest(*worker);
  }
  // Then the worker's Say... are about that attempt.
  v1::MeasureLinks TakeRequest(FakeWorker& worker) {
    auto message = worker.Take(OrchestratorMessage::kMeasureLinks);
    EXPECT_TRUE(message.has_value()) << worker.name << " is not asked for its link";
    if (!message.has_value()) return {};
    worker.attempt = message->measure_links().attempt();
    return message->measure_links();
  }
  void SayMeasured(FakeWorker& worker, std::optional<double> bytes_per_second) {
    v1::WorkerMessage message;
    *message.mutable_links_measured()->mutable_attempt() = worker.attempt;
    if (bytes_per_second) message.mutable_links_measured()->mutable_next()->set_bytes_per_second(*bytes_per_second);
    Say(worker, message);
  }
  std::optional<Links> Known(const std::vector<std::string>& names) {
    std::vector<v1::Hello> workers;
    for (const std::string& name : names) workers.push_back(parts_->cluster.registry().Find(name)->hello);
    return parts_->scheduler.links().Find(workers);
  }
  void Finish(const std::string& id, const std::vector<FakeWorker*>& workers) {
    for (FakeWorker* worker : workers) SayPrepared(*worker);
    for (FakeWorker* worker : workers) SayFinished(*worker);
    for (FakeWorker* worker : workers) SayReleased(*worker);
    EXPECT_EQ(Get(id).state(), Job::STATE_SUCCEEDED);
  }
  FakeWorker* w0_ = nullptr;
  FakeWorker* w1_ = nullptr;
  std::string id_;
};

TEST_F(LinkMeterTest, AJobWithoutBalanceHasItsLinksMeasuredFirst) {
  BeginMeasuring();
  EXPECT_EQ(Get(id_).state(), Job::STATE_QUEUED);
  EXPECT_EQ(StateOf("w0"), Worker::STATE_ASSIGNED);
  EXPECT_EQ(w0_->attempt.job(), id_ + "/links");
  SayMeasured(*w1_, std::nullopt);
  SayMeasured(*w0_, 1e9);
  EXPECT_EQ(StateOf("w0"), Worker::STATE_RELEASING);
  EXPECT_TRUE(w0_->Has(OrchestratorMessage::kRelease));
  SayReleased(*w0_);
  EXPECT_EQ(Get(id_).state(), Job::STATE_QUEUED) << "w1 is not free yet";
  SayReleased(*w1_);
  EXPECT_EQ(Get(id_).state(), Job::STATE_STARTING);
  EXPECT_THAT(Get(id_).workers(), ElementsAre("w0", "w1"));
  ASSERT_TRUE(Known({"w0", "w1"}).has_value());
  EXPECT_EQ(Known({"w0", "w1"})->at(0).bytes_per_second(), 1e9);
  EXPECT_FALSE(Known({"w1", "w0"}).has_value());
  ASSERT_EQ(Get(id_).forecast().links_size(), 1);
  EXPECT_EQ(Get(id_).forecast().links(0).bytes_per_second(), 1e9);
}

TEST_F(LinkMeterTest, EachWorkerIsToldItsPlaceAndMeetsTheOthersAtARendezvous) {
  answer_links_ = false;
  w0_ = &Connect("w0");
  w1_ = &Connect("w1");
  id_ = Submit(UnbalancedSpec())->id();
  EXPECT_EQ(TakeRequest(*w0_).worker_index(), 0);
  const v1::MeasureLinks second = TakeRequest(*w1_);
  EXPECT_EQ(second.worker_index(), 1);
  EXPECT_EQ(second.workers(), 2);
  v1::WorkerMessage get;
  *get.mutable_rendezvous_get()->mutable_attempt() = w1_->attempt;
  get.mutable_rendezvous_get()->set_key("k");
  Say(*w1_, get);
  v1::WorkerMessage put;
  *put.mutable_rendezvous_put()->mutable_attempt() = w0_->attempt;
  put.mutable_rendezvous_put()->set_key("k");
  put.mutable_rendezvous_put()->set_value("v");
  Say(*w0_, put);
  auto value = w1_->Take(OrchestratorMessage::kRendezvousValue);
  ASSERT_TRUE(value.has_value());
  EXPECT_EQ(value->rendezvous_value().value(), "v");
  EXPECT_TRUE(SameAttempt(value->rendezvous_value().attempt(), w1_->attempt));
}

TEST_F(LinkMeterTest, TheNextJobOnTheSameWorkersMeasuresNothing) {
  w0_ = &Connect("w0");
  w1_ = &Connect("w1");
  for (int i = 0; i < 2; ++i) {
    id_ = Submit(UnbalancedSpec())->id();
    EXPECT_EQ(Get(id_).state(), Job::STATE_STARTING);
    Finish(id_, {w0_, w1_});
  }
  EXPECT_EQ(link_measurements_, 1);
}

TEST_F(LinkMeterTest, APlanUsesWhatIsKnownAndMeasuresNothing) {
  w0_ = &Connect("w0");
  w1_ = &Connect("w1");
  EXPECT_EQ(Plan(UnbalancedSpec())->forecast().links_size(), 0);
  EXPECT_EQ(link_measurements_, 0);
  id_ = Submit(UnbalancedSpec())->id();
  Finish(id_, {w0_, w1_});
  EXPECT_EQ(Plan(UnbalancedSpec())->forecast().links_size(), 1);
  EXPECT_EQ(link_measurements_, 1);
}

TEST_F(LinkMeterTest, ANewProcessUnderTheSameNameIsMeasuredAgain) {
  w0_ = &Connect("w0");
  w1_ = &Connect("w1");
  id_ = Submit(UnbalancedSpec())->id();
  Finish(id_, {w0_, w1_});
  Disconnect(*w1_);
  w1_ = &Connect("w1");
  EXPECT_FALSE(Known({"w0", "w1"}).has_value());
  id_ = Submit(UnbalancedSpec())->id();
  Finish(id_, {w0_, w1_});
  EXPECT_EQ(link_measurements_, 2);
}

TEST_F(LinkMeterTest, WhatIsNotCutByCostIsNotMeasured) {
  w0_ = &Connect("w0");
  w1_ = &Connect("w1");
  id_ = Submit(ParseSpec(kTrainYaml))->id();
  EXPECT_EQ(Get(id_).state(), Job::STATE_STARTING);
  EXPECT_EQ(link_measurements_, 0);
}

TEST_F(LinkMeterTest, AfterAWorkersErrorTheJobGoesOnWithoutLinks) {
  BeginMeasuring();
  SayFailed(*w1_, absl::InternalError("broken"), false);
  EXPECT_TRUE(w0_->Has(OrchestratorMessage::kAbort));
  SayReleased(*w1_);
  SayReleased(*w0_);
  EXPECT_EQ(Get(id_).state(), Job::STATE_STARTING);
  EXPECT_FALSE(Known({"w0", "w1"}).has_value());
  EXPECT_EQ(Get(id_).forecast().links_size(), 0);
}

TEST_F(LinkMeterTest, ASpeedThatIsNoneIsAnError) {
  for (double nonsense : {0.0, -1.0, std::nan("")}) {
    Restart();
    BeginMeasuring();
    SayMeasured(*w0_, nonsense);
    SayMeasured(*w1_, std::nullopt);
    SayReleased(*w1_);
    SayReleased(*w0_);
    EXPECT_EQ(Get(id_).state(), Job::STATE_STARTING);
    EXPECT_FALSE(Known({"w0", "w1"}).has_value());
    EXPECT_TRUE(Do([&] { return parts_->scheduler.Cancel(id_); }).ok());
  }
}

TEST_F(LinkMeterTest, WorkersThatDoNotAnswerHoldUpTheJobForSoLongOnly) {
  BeginMeasuring();
  SayMeasured(*w0_, 1e9);
  Pass(LinkMeter::kTimeout - absl::Seconds(2), {w0_, w1_});
  EXPECT_EQ(StateOf("w1"), Worker::STATE_ASSIGNED);
  Pass(absl::Seconds(3), {w0_, w1_});
  EXPECT_EQ(StateOf("w1"), Worker::STATE_RELEASING);
  SayReleased(*w0_);
  SayReleased(*w1_);
  EXPECT_EQ(Get(id_).state(), Job::STATE_STARTING);
}

TEST_F(LinkMeterTest, AWorkerThatDoesNotLetGoIsLostAndTheJobWaitsForAnother) {
  BeginMeasuring();
  Pass(LinkMeter::kTimeout + absl::Seconds(1), {w0_, w1_});
  SayReleased(*w0_);
  Pass(absl::Seconds(12), {w0_, w1_});
  EXPECT_EQ(StateOf("w1"), Worker::STATE_LOST);
  EXPECT_EQ(Get(id_).state(), Job::STATE_QUEUED);
  Connect("w2");
  EXPECT_THAT(Get(id_).workers(), ElementsAre("w0", "w2"));
}

TEST_F(LinkMeterTest, WhenAWorkerIsLostTheJobTriesAgainWithWhoIsThere) {
  BeginMeasuring();
  Connect("w2");
  SayFailed(*w0_, absl::UnavailableError("worker 1 is gone"), true);
  Disconnect(*w1_);
  EXPECT_TRUE(w0_->Has(OrchestratorMessage::kAbort));
  answer_links_ = true;
  SayReleased(*w0_);
  EXPECT_EQ(Get(id_).state(), Job::STATE_STARTING);
  EXPECT_THAT(Get(id_).workers(), ElementsAre("w0", "w2"));
  EXPECT_TRUE(Known({"w0", "w2"}).has_value());
}

TEST_F(LinkMeterTest, LinksThatAlwaysBreakAreGivenUp) {
  BeginMeasuring();
  for (int tries = 1; tries <= Scheduler::kMaxLinkTries; ++tries) {
    EXPECT_EQ(Get(id_).state(), Job::STATE_QUEUED);
    if (tries > 1) {
      for (FakeWorker* worker : {w0_, w1_}) TakeRequest(*worker);
    }
    SayFailed(*w0_, absl::UnavailableError("the connection with worker 1 is lost"), true);
    SayFailed(*w1_, absl::UnavailableError("the connection with worker 0 is lost"), true);
    for (FakeWorker* worker : {w0_, w1_}) SayReleased(*worker);
  }
  EXPECT_EQ(Get(id_).state(), Job::STATE_STARTING);
}

TEST_F(LinkMeterTest, ABrokenLinkOfWhichOneEndSaysNothingIsNotWaitedForForLong) {
  BeginMeasuring();
  SayFailed(*w0_, absl::UnavailableError("the connection with worker 1 is lost"), true);
  EXPECT_FALSE(w1_->Has(OrchestratorMessage::kAbort));
  Pass(absl::Seconds(7), {w0_, w1_});
  EXPECT_TRUE(w1_->Has(OrchestratorMessage::kAbort));
}

TEST_F(LinkMeterTest, ALeavingWorkerMayGoAtOnce) {
  BeginMeasuring();
  SayLeaving(*w1_);
  EXPECT_TRUE(w1_->Has(OrchestratorMessage::kLeaveGranted));
  EXPECT_TRUE(w0_->Has(OrchestratorMessage::kAbort));
  SayReleased(*w0_);
  EXPECT_EQ(StateOf("w0"), Worker::STATE_IDLE);
  EXPECT_EQ(Get(id_).state(), Job::STATE_QUEUED);
  answer_links_ = true;
  Connect("w2");
  EXPECT_THAT(Get(id_).workers(), ElementsAre("w0", "w2"));
}

TEST_F(LinkMeterTest, ACancelledJobsWorkersAreFreeWhenTheyHaveMeasured) {
  BeginMeasuring();
  EXPECT_TRUE(Do([&] { return parts_->scheduler.Cancel(id_); }).ok());
  const std::string next = Submit(UnbalancedSpec())->id();
  EXPECT_EQ(Get(next).state(), Job::STATE_QUEUED);
  SayMeasured(*w0_, 1e9);
  SayMeasured(*w1_, std::nullopt);
  SayReleased(*w0_);
  SayReleased(*w1_);
  EXPECT_EQ(Get(next).state(), Job::STATE_STARTING);
}

TEST_F(LinkMeterTest, AWorkerThatLetsGoByItselfEndsIt) {
  BeginMeasuring();
  SayReleased(*w1_);
  EXPECT_TRUE(w0_->Has(OrchestratorMessage::kAbort));
  SayReleased(*w0_);
  EXPECT_EQ(Get(id_).state(), Job::STATE_STARTING);
}

}  // namespace
}  // namespace gpipe::orchestrator
