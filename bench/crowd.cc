// A crowd of simulated workers for bench/orchestrator_scale.py, in one process, each over a connection of its own. They
// describe a list of linear layers, are prepared at once for whatever they are assigned, and have done every clock
// cycle as soon as it is granted; they compute nothing and know no peers. Usage: crowd ADDRESS WORKERS; then commands
// on standard input, each answered by one line of JSON:
//   job STAGES MICRO_BATCHES WINDOW CYCLES   places a training job, measures so many cycles of it, and cancels it; with
//                                            WINDOW 1 each one is a report of all stages and the grant to all of them
//   history JOBS                             submits so many jobs and cancels them
// The end of the input ends the sessions.

#include <grpcpp/create_channel.h>

#include <algorithm>
#include <atomic>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <deque>
#include <functional>
#include <iostream>
#include <memory>
#include <set>
#include <sstream>
#include <string>
#include <thread>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/strings/str_cat.h"
#include "absl/synchronization/mutex.h"
#include "absl/synchronization/notification.h"
#include "absl/time/time.h"
#include "client/api/cluster_client.h"
#include "gpipe/v1/worker_session.grpc.pb.h"

namespace {

namespace v1 = gpipe::v1;
using gpipe::client::ClusterClient;

constexpr int kWidth = 8;
constexpr absl::Duration kHeartbeat = absl::Seconds(1);
constexpr int64_t kWarmUpCycles = 8;
constexpr int kClients = 8;

double Seconds() { return std::chrono::duration<double>(std::chrono::steady_clock::now().time_since_epoch()).count(); }

[[noreturn]] void Die(const std::string& why) {
  std::fprintf(stderr, "crowd: %s\n", why.c_str());
  std::exit(1);
}

// What the workers have seen, since the last Forget but for `welcomed`. Any thread.
class Tally {
 public:
  struct Counts {
    int welcomed = 0, ended = 0, assigned = 0, released = 0;
    int64_t assigned_bytes = 0, largest_assignment = 0;
    std::vector<double> grants = {};  // When each came.
  };

  template <typename Change>
  void Note(const Change& change) {
    absl::MutexLock lock(&mutex_);
    change(counts_);
  }

  // Ends the program when it does not come true within two minutes.
  template <typename Condition>
  void Await(const char* what, const Condition& condition) {
    absl::MutexLock lock(&mutex_);
    const auto holds = [&]() ABSL_NO_THREAD_SAFETY_ANALYSIS { return condition(counts_); };
    if (!mutex_.AwaitWithTimeout(absl::Condition(&holds), absl::Minutes(2))) Die(absl::StrCat("waited for ", what));
  }

  Counts Forget() {
    absl::MutexLock lock(&mutex_);
    const Counts before = counts_;
    counts_ = {.welcomed = counts_.welcomed, .ended = counts_.ended};
    return before;
  }

 private:
  absl::Mutex mutex_;
  Counts counts_ ABSL_GUARDED_BY(mutex_);
};

v1::LayerInfo Describe(const v1::Model& model, int index) {
  v1::LayerInfo layer;
  layer.set_kind("linear");
  layer.set_parameter_count(kWidth * kWidth);
  layer.set_parameter_bytes(4 * kWidth * kWidth);
  layer.set_trainable_count(kWidth * kWidth);
  layer.add_reads(index == 0 ? "input" : absl::StrCat("layer.", index - 1));
  v1::ModelValue& value = *layer.add_makes();
  value.set_name(absl::StrCat("layer.", index));
  value.add_shape()->set_per_sample(1);
  value.add_shape()->set_fixed(kWidth);
  value.set_dtype(v1::DATA_TYPE_FLOAT32);
  value.set_requires_grad(true);
  if (index == model.sequential_size() - 1) *layer.add_outputs() = value;
  return layer;
}

class Worker final : public grpc::ClientBidiReactor<v1::WorkerMessage, v1::OrchestratorMessage> {
 public:
  Worker(const std::string& address, const std::string& name, Tally* tally) : tally_(tally) {
    grpc::ChannelArguments arguments;
    arguments.SetInt(GRPC_ARG_USE_LOCAL_SUBCHANNEL_POOL, 1);
    arguments.SetMaxReceiveMessageSize(-1);
    stub_ = v1::WorkerSessionService::NewStub(
        grpc::CreateCustomChannel(address, grpc::InsecureChannelCredentials(), arguments));
    stub_->async()->Session(&context_, this);
    v1::WorkerMessage message;
    v1::Hello& hello = *message.mutable_hello();
    hello.set_name(name);
    hello.set_device("cpu");
    hello.set_device_name("simulated");
    hello.set_threads(1);
    hello.set_data_address("127.0.0.1");
    hello.set_incarnation(name);
    Say(std::move(message));
    StartRead(&incoming_);
    StartCall();
  }

  ~Worker() override {
    context_.TryCancel();
    done_.WaitForNotification();
  }

  void Beat() {
    v1::WorkerMessage message;
    message.mutable_heartbeat();
    Say(std::move(message));
  }

  void OnReadDone(bool ok) override {
    if (!ok) return;
    Answer(incoming_);
    StartRead(&incoming_);
  }

  void OnWriteDone(bool ok) override {
    absl::MutexLock lock(&mutex_);
    outgoing_.pop_front();
    if (ok && !outgoing_.empty()) StartWrite(&outgoing_.front());
  }

  void OnDone(const grpc::Status&) override {
    tally_->Note([](auto& counts) { ++counts.ended; });
    done_.Notify();
  }

 private:
  void Say(v1::WorkerMessage message) {
    absl::MutexLock lock(&mutex_);
    outgoing_.push_back(std::move(message));
    if (outgoing_.size() == 1) StartWrite(&outgoing_.front());
  }

  void Answer(const v1::OrchestratorMessage& message) {
    if (message.has_welcome()) tally_->Note([](auto& counts) { ++counts.welcomed; });
    if (message.has_inspect()) Inspect(message.inspect());
    if (message.has_prepare()) Prepare(message.prepare());
    if (message.has_grant()) Progress(message.grant());
    if (message.has_abort()) Release(message.abort().attempt());
    if (message.has_release()) Release(message.release().attempt());
  }

  void Inspect(const v1::Inspect& inspect) {
    v1::WorkerMessage message;
    v1::Inspected& inspected = *message.mutable_inspected();
    inspected.set_id(inspect.id());
    for (int i = 0; i < inspect.model().sequential_size(); ++i) *inspected.add_layers() = Describe(inspect.model(), i);
    Say(std::move(message));
  }

  void Prepare(const v1::Assignment& assignment) {
    cycles_ = assignment.plan().programs(0).cycles();
    reported_ = -1;
    const auto bytes = static_cast<int64_t>(assignment.ByteSizeLong());
    tally_->Note([bytes](auto& counts) {
      ++counts.assigned;
      counts.assigned_bytes += bytes;
      counts.largest_assignment = std::max(counts.largest_assignment, bytes);
    });
    v1::WorkerMessage message;
    *message.mutable_prepared()->mutable_attempt() = assignment.attempt();
    Say(std::move(message));
  }

  // Every round has the cycles of the first program: there is one size of mini-batch.
  void Progress(const v1::Grant& grant) {
    tally_->Note([](auto& counts) { counts.grants.push_back(Seconds()); });
    v1::WorkerMessage message;
    v1::Progress& progress = *message.mutable_progress();
    *progress.mutable_attempt() = grant.attempt();
    progress.set_round(grant.round());
    progress.set_cycle(grant.cycle());
    const int64_t last_done = grant.cycle() == cycles_ - 1 ? grant.round() : grant.round() - 1;
    for (int64_t round = reported_ + 1; round <= last_done; ++round) {
      v1::RoundDone& done = *progress.add_rounds();
      done.set_round(round);
      done.set_step(round);
      done.set_samples(1);
      done.set_wall_nanos(1'000'000);
      done.set_loss(1);
    }
    reported_ = std::max(reported_, last_done);
    Say(std::move(message));
  }

  void Release(const v1::AttemptId& attempt) {
    v1::WorkerMessage message;
    *message.mutable_released()->mutable_attempt() = attempt;
    Say(std::move(message));
    tally_->Note([](auto& counts) { ++counts.released; });
  }

  Tally* const tally_;
  std::unique_ptr<v1::WorkerSessionService::Stub> stub_;
  grpc::ClientContext context_;
  absl::Notification done_;
  // Of the thread that reads.
  v1::OrchestratorMessage incoming_;
  int32_t cycles_ = 1;
  int64_t reported_ = -1;
  absl::Mutex mutex_;
  std::deque<v1::WorkerMessage> outgoing_ ABSL_GUARDED_BY(mutex_);  // The first one is being written.
};

v1::SubmitJobRequest Request(int stages, int micro_batches, int64_t window) {
  v1::SubmitJobRequest request;
  v1::JobSpec& spec = *request.mutable_spec();
  spec.set_name("crowd");
  for (int i = 0; i < stages; ++i) {
    v1::Linear& linear = *spec.mutable_model()->add_sequential()->mutable_linear();
    linear.set_in_features(kWidth);
    linear.set_out_features(kWidth);
    spec.mutable_pipeline()->add_balance(1);
  }
  spec.mutable_pipeline()->set_chunks(micro_batches);
  spec.mutable_pipeline()->set_clock_window(window);
  v1::Train& train = *spec.mutable_train();
  v1::RandomDataset& random = *train.mutable_dataset()->mutable_random();
  random.set_samples(micro_batches);
  random.add_input_shape(kWidth);
  random.set_classes(kWidth);
  train.set_batch_size(micro_batches);
  train.set_steps(1'000'000);
  train.mutable_loss()->mutable_cross_entropy();
  train.mutable_optimizer()->mutable_sgd()->set_lr(0.1);
  return request;
}

v1::Job Submit(ClusterClient& client, v1::SubmitJobRequest request, int number) {
  request.set_request_id(absl::StrCat("crowd-", absl::ToUnixNanos(absl::Now()), "-", number));
  const absl::StatusOr<v1::Job> job = client.SubmitJob(request);
  if (!job.ok()) Die(job.status().ToString());
  return *job;
}

void Cancel(ClusterClient& client, const std::string& id) {
  if (const auto cancelled = client.CancelJob(id); !cancelled.ok()) Die(cancelled.status().ToString());
}

// Seconds from one cycle's last grant to that of the next, of those after the warm-up, sorted.
std::vector<double> CycleTimes(const std::vector<double>& grants, int stages) {
  std::vector<double> times;
  const auto all = static_cast<size_t>(stages);
  for (size_t i = all * static_cast<size_t>(kWarmUpCycles + 1) - 1; i < grants.size(); i += all) {
    times.push_back(grants[i] - grants[i - all]);
  }
  std::sort(times.begin(), times.end());
  return times;
}

std::string RunJob(ClusterClient& client, Tally& tally, int stages, int micro_batches, int64_t window, int64_t cycles) {
  tally.Forget();
  const double begin = Seconds();
  const v1::Job job = Submit(client, Request(stages, micro_batches, window), 0);
  const double submitted = Seconds();
  tally.Await("assignments", [&](const auto& counts) { return counts.assigned == stages; });
  const double placed = Seconds();
  const auto enough = static_cast<size_t>(stages * (kWarmUpCycles + cycles));
  tally.Await("grants", [&](const auto& counts) { return counts.grants.size() >= enough; });
  Cancel(client, job.id());
  tally.Await("releases", [&](const auto& counts) { return counts.released == stages; });
  const Tally::Counts counts = tally.Forget();
  const std::vector<double> times = CycleTimes(counts.grants, stages);
  return absl::StrCat(
      "{\"submit_seconds\": ", submitted - begin, ", \"place_seconds\": ", placed - submitted,
      ", \"grant_seconds\": ", times[times.size() / 2], ", \"grant_seconds_99\": ", times[times.size() * 99 / 100],
      ", \"largest_assignment\": ", counts.largest_assignment, ", \"assigned_bytes\": ", counts.assigned_bytes, "}");
}

// The jobs ask for GPUs, which no worker has, so that they wait until they are cancelled. Several clients, as each
// waits for the disk.
std::string MakeHistory(const std::string& address, int jobs) {
  v1::SubmitJobRequest request = Request(16, 1, 0);
  request.mutable_spec()->mutable_pipeline()->set_device(v1::DEVICE_CUDA);
  const double begin = Seconds();
  std::atomic<int> next = 0;
  {
    std::vector<std::jthread> clients;
    for (int i = 0; i < kClients; ++i) {
      clients.emplace_back([&] {
        ClusterClient client({.address = address});
        for (int number = next++; number < jobs; number = next++) Cancel(client, Submit(client, request, number).id());
      });
    }
  }
  return absl::StrCat("{\"seconds\": ", Seconds() - begin, "}");
}

}  // namespace

int main(int argc, char** argv) {
  if (argc != 3) Die("usage: crowd ADDRESS WORKERS");
  const std::string address = argv[1];
  const int count = std::atoi(argv[2]);
  ClusterClient client({.address = address});
  Tally tally;
  std::vector<std::unique_ptr<Worker>> workers;
  const double begin = Seconds();
  for (int i = 0; i < count; ++i) {
    workers.push_back(std::make_unique<Worker>(address, absl::StrCat("s", 10000 + i), &tally));
  }
  tally.Await("welcomes", [&](const auto& counts) { return counts.welcomed == count; });
  std::cout << "{\"join_seconds\": " << Seconds() - begin << "}" << std::endl;

  absl::Notification over;
  std::jthread heart([&] {
    while (!over.WaitForNotificationWithTimeout(kHeartbeat)) {
      for (const auto& worker : workers) worker->Beat();
    }
  });
  for (std::string line; std::getline(std::cin, line);) {
    std::istringstream words(line);
    std::string command;
    int64_t stages = 0, micro_batches = 0, window = 0, cycles = 0;
    words >> command >> stages >> micro_batches >> window >> cycles;
    std::cout << (command == "job"
                      ? RunJob(client, tally, static_cast<int>(stages), static_cast<int>(micro_batches), window, cycles)
                      : MakeHistory(address, static_cast<int>(stages)))
              << std::endl;
  }
  over.Notify();
}
