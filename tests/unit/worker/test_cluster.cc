#include "tests/unit/worker/test_cluster.h"

#include <utility>

#include "common/safetensors/header.h"
#include "gtest/gtest.h"
#include "tests/unit/all_rounds.h"
#include "worker/comm/in_process_communicator.h"
#include "worker/engine/channels.h"
#include "worker/engine/link_probe.h"

namespace gpipe::worker {

TestCluster::TestCluster(int workers, const std::map<int, std::string>& failpoints, int64_t max_shard_bytes)
    : folder_(*TemporaryFolder::Create("engine-test")), first_message_(workers, 0) {
  attempt_.set_job("test");
  clock_.Add(/*sent_nanos=*/1, /*answered_nanos=*/1, /*heard_nanos=*/1);  // The same clock.
  for (int i = 0; i < workers; ++i) {
    sinks_.push_back(std::make_unique<RecordingSink>());
    EngineOptions options;
    options.work_dir = folder_.path() / std::to_string(i);
    options.max_shard_bytes = max_shard_bytes;
    options.clock = &clock_;
    options.connect = [this, i](const CommOptions&, Rendezvous&) { return Connect(i); };
    if (failpoints.contains(i)) options.failpoint = *Failpoint::Parse(failpoints.at(i));
    engines_.push_back(*Engine::Create(std::move(options), artifacts_, *sinks_[i]));
  }
}

TestCluster::~TestCluster() {
  for (auto& engine : engines_) engine->AbortAndWait(absl::CancelledError("the test is over"));
}

absl::StatusOr<std::unique_ptr<Communicator>> TestCluster::Connect(int worker) {
  absl::MutexLock lock(&mutex_);
  return std::move(communicators_[worker]);
}

void TestCluster::Prepare(const v1::JobSpec& spec, const v1::Plan& plan, int workers, const v1::Assignment& resume) {
  BeginAttempt(workers, ChannelsOf(plan).channels);
  for (int i = 0; i < workers; ++i) {
    v1::Assignment assignment = resume;
    *assignment.mutable_attempt() = attempt_;
    *assignment.mutable_spec() = spec;
    *assignment.mutable_plan() = plan;
    assignment.mutable_plan()->clear_timeline();
    *assignment.mutable_first() = AllRounds(spec, plan);
    assignment.set_output_samples(plan.timeline().samples());
    assignment.set_worker_index(i);
    for (int peer = 0; peer < workers; ++peer) assignment.add_peers();
    engines_[i]->Prepare(std::move(assignment));
  }
}

void TestCluster::MeasureLinks(int workers) {
  BeginAttempt(workers, LinkChannels(workers));
  for (int i = 0; i < workers; ++i) {
    v1::MeasureLinks request;
    *request.mutable_attempt() = attempt_;
    request.set_worker_index(i);
    request.set_workers(workers);
    engines_[i]->MeasureLinks(std::move(request));
  }
}

void TestCluster::BeginAttempt(int workers, std::vector<Channel> channels) {
  workers_ = workers;
  attempt_.set_attempt(attempt_.attempt() + 1);
  for (int i = 0; i < workers; ++i) first_message_[i] = sinks_[i]->messages().size();
  absl::MutexLock lock(&mutex_);
  communicators_ = *MakeInProcessCommunicators(workers, std::move(channels));
}

v1::LinksMeasured TestCluster::WaitForLinks(int worker) {
  auto message = sinks_[worker]->WaitFor([](const v1::WorkerMessage& m) { return m.has_links_measured(); },
                                         first_message_[worker]);
  EXPECT_TRUE(message) << "worker " << worker << " does not measure";
  return message ? message->links_measured() : v1::LinksMeasured();
}

void TestCluster::Grant(int64_t round, int cycle) {
  v1::Grant grant;
  *grant.mutable_attempt() = attempt_;
  grant.set_round(round);
  grant.set_cycle(cycle);
  for (int i = 0; i < workers_; ++i) engines_[i]->Grant(grant);
}

void TestCluster::Abort(const std::string& reason) {
  for (int i = 0; i < workers_; ++i) engines_[i]->Abort(attempt_, absl::CancelledError(reason));
}

void TestCluster::Release() {
  for (int i = 0; i < workers_; ++i) engines_[i]->Release(attempt_);
}

std::vector<v1::Finished> TestCluster::Finish() {
  std::vector<v1::Finished> finished;
  for (int i = 0; i < workers_; ++i) {
    auto message = sinks_[i]->WaitFor([](const v1::WorkerMessage& m) { return m.has_finished() || m.has_failed(); },
                                      first_message_[i]);
    EXPECT_TRUE(message && message->has_finished()) << (message ? message->ShortDebugString() : "nothing");
    if (message) finished.push_back(message->finished());
  }
  Release();
  for (int i = 0; i < workers_; ++i) WaitForReleased(i);
  return finished;
}

v1::Failed TestCluster::WaitForFailure(int worker) {
  auto message =
      sinks_[worker]->WaitFor([](const v1::WorkerMessage& m) { return m.has_failed(); }, first_message_[worker]);
  EXPECT_TRUE(message) << "worker " << worker << " does not fail";
  return message ? message->failed() : v1::Failed();
}

void TestCluster::WaitForReleased(int worker) {
  EXPECT_TRUE(
      sinks_[worker]->WaitFor([](const v1::WorkerMessage& m) { return m.has_released(); }, first_message_[worker]))
      << "worker " << worker << " is not released";
}

std::vector<v1::ActionDone> TestCluster::Actions(int worker) {
  std::vector<v1::ActionDone> actions;
  const std::vector<v1::WorkerMessage> messages = sinks_[worker]->messages();
  for (size_t i = first_message_[worker]; i < messages.size(); ++i) {
    for (const v1::ActionDone& action : messages[i].progress().actions()) actions.push_back(action);
  }
  return actions;
}

std::vector<v1::RoundDone> TestCluster::Rounds(int worker) {
  std::vector<v1::RoundDone> rounds;
  const std::vector<v1::WorkerMessage> messages = sinks_[worker]->messages();
  for (size_t i = first_message_[worker]; i < messages.size(); ++i) {
    for (const v1::RoundDone& round : messages[i].progress().rounds()) rounds.push_back(round);
  }
  return rounds;
}

std::vector<v1::Evaluation> TestCluster::Evaluations() {
  std::vector<v1::Evaluation> evaluations;
  const std::vector<v1::WorkerMessage> messages = sinks_[workers_ - 1]->messages();
  for (size_t i = first_message_[workers_ - 1]; i < messages.size(); ++i) {
    if (messages[i].has_evaluation()) evaluations.push_back(messages[i].evaluation());
  }
  return evaluations;
}

std::vector<v1::CheckpointShard> TestCluster::Shards(int64_t step) {
  std::vector<v1::CheckpointShard> shards;
  for (int i = 0; i < workers_; ++i) {
    for (const v1::WorkerMessage& message : sinks_[i]->messages()) {
      const v1::CheckpointShard& shard = message.checkpoint_shard();
      if (message.has_checkpoint_shard() && shard.attempt().attempt() == attempt_.attempt() && shard.step() == step) {
        shards.push_back(shard);
      }
    }
  }
  return shards;
}

std::map<std::string, std::string> TestCluster::Tensors(const std::vector<v1::ArtifactRef>& files) {
  std::map<std::string, std::string> tensors;
  for (const v1::ArtifactRef& ref : files) {
    const std::filesystem::path path = folder_.path() / "tensors.safetensors";
    EXPECT_TRUE(artifacts_.Download(ref, path).ok());
    const std::string content = *ReadFile(path);
    const safetensors::Header header = *safetensors::ReadHeader(path);
    for (const auto& [name, info] : header.tensors) {
      EXPECT_TRUE(tensors.emplace(name, content.substr(info.begin, info.end - info.begin)).second) << name;
    }
  }
  return tensors;
}

TrainingResult Train(const v1::JobSpec& spec, const Cut& cut) {
  TestCluster cluster(cut.workers());
  cluster.Prepare(spec, cut);
  cluster.GrantAll();
  std::vector<v1::ArtifactRef> models;
  for (const v1::Finished& finished : cluster.Finish()) {
    models.insert(models.end(), finished.model().begin(), finished.model().end());
  }
  TrainingResult result;
  for (const v1::RoundDone& round : cluster.Rounds(cut.workers() - 1)) {
    if (!round.has_loss()) continue;
    result.losses.push_back(round.loss());
    result.rates.push_back(round.lr());
  }
  result.grad_squares.resize(result.losses.size());
  for (int worker = 0; worker < cut.workers(); ++worker) {
    for (const v1::RoundDone& round : cluster.Rounds(worker)) {
      for (const v1::StageReport& stage : round.stages()) {
        const auto& squares = stage.layer_grad_squares();
        if (squares.empty()) continue;
        std::vector<double>& of_step = result.grad_squares.at(round.step());
        of_step.insert(of_step.end(), squares.begin(), squares.end());
      }
    }
  }
  for (const v1::Evaluation& e : cluster.Evaluations()) result.evaluations.push_back({e.loss(), e.accuracy()});
  result.parameters = cluster.Tensors(models);
  return result;
}

}  // namespace gpipe::worker
