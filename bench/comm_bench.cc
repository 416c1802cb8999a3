// How fast two workers of one thread each exchange tensors over Gloo on this machine, as a JSON line per size:
//   ping_pong_us      there and back, halved
//   stream_us, _mb_s  one direction, receives posted ahead
//   begin_us          what beginning one of these takes from the sender's and from the receiver's own thread, both
//   together pipeline_ratio    the bound of a two-stage pipeline of 32 micro-batches, over the measured time, when
//   every
//                     micro-batch computes for about 15 ms on each worker and one tensor goes forward: 1 is perfect.
//                     The median of five, each with its own bound

#include <ATen/ATen.h>
#include <ATen/Parallel.h>

#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <deque>
#include <functional>
#include <memory>
#include <thread>
#include <vector>

#include "absl/time/clock.h"
#include "absl/time/time.h"
#include "worker/comm/connect.h"
#include "worker/comm/in_process_rendezvous.h"

namespace gpipe::worker {
namespace {

constexpr int kMessages = 400;
constexpr int kWindow = 4;
constexpr int kMicroBatches = 32;
constexpr int kForward = 0;
constexpr int kBackward = 1;

void Require(const absl::Status& status) {
  if (status.ok()) return;
  std::fprintf(stderr, "%s\n", status.ToString().c_str());
  std::exit(1);
}

std::unique_ptr<Work> Started(absl::StatusOr<std::unique_ptr<Work>> work) {
  Require(work.status());
  return *std::move(work);
}

// Runs `body` on two connected workers and returns the seconds worker 0 took.
double OnTwoWorkers(const std::function<void(Communicator&)>& body) {
  InProcessRendezvous rendezvous;
  double seconds = 0;
  const auto run = [&](int rank) {
    at::set_num_threads(1);
    CommOptions options;
    options.rank = rank;
    options.size = 2;
    options.data_address = "127.0.0.1";
    options.channels = {{"forward", 0, 1}, {"backward", 1, 0}};
    auto comm = Connect(options, rendezvous);
    Require(comm.status());
    const at::Tensor barrier = at::zeros({1});
    Require((*comm)->AllReduceSum(barrier));
    const absl::Time start = absl::Now();
    body(**comm);
    Require((*comm)->AllReduceSum(barrier));
    if (rank == 0) seconds = absl::ToDoubleSeconds(absl::Now() - start);
  };
  std::thread peer(run, 1);
  run(0);
  peer.join();
  return seconds;
}

double PingPong(int64_t bytes) {
  return OnTwoWorkers([bytes](Communicator& comm) {
    const at::Tensor tensor = at::zeros({bytes}, at::kByte);
    for (int i = 0; i < kMessages; ++i) {
      if (comm.rank() == 0) Require(Started(comm.Send(kForward, tensor))->Wait());
      if (comm.rank() == 1) Require(Started(comm.Receive(kForward, tensor))->Wait());
      if (comm.rank() == 1) Require(Started(comm.Send(kBackward, tensor))->Wait());
      if (comm.rank() == 0) Require(Started(comm.Receive(kBackward, tensor))->Wait());
    }
  });
}

// `begin_seconds`: of each rank, spent in Send or Receive.
double Stream(int64_t bytes, double (&begin_seconds)[2]) {
  return OnTwoWorkers([bytes, &begin_seconds](Communicator& comm) {
    std::vector<at::Tensor> tensors;
    for (int i = 0; i < kWindow; ++i) tensors.push_back(at::zeros({bytes}, at::kByte));
    std::deque<std::unique_ptr<Work>> works;
    for (int i = 0; i < kMessages; ++i) {
      if (works.size() == kWindow) {
        Require(works.front()->Wait());
        works.pop_front();
      }
      const at::Tensor& tensor = tensors[i % kWindow];
      const absl::Time begin = absl::Now();
      works.push_back(Started(comm.rank() == 0 ? comm.Send(kForward, tensor) : comm.Receive(kForward, tensor)));
      begin_seconds[comm.rank()] += absl::ToDoubleSeconds(absl::Now() - begin);
    }
    for (auto& work : works) Require(work->Wait());
  });
}

void Compute(const at::Tensor& matrix) {
  for (int i = 0; i < 40; ++i) at::mm(matrix, matrix);
}

// Two workers side by side that exchange nothing.
double ComputeAlone(int64_t side) {
  return OnTwoWorkers([side](Communicator& comm) {
    const at::Tensor matrix = at::ones({side, side});
    for (int i = 0; i < kMicroBatches; ++i) Compute(matrix);
  });
}

double Pipeline(int64_t bytes, int64_t side) {
  return OnTwoWorkers([bytes, side](Communicator& comm) {
    const at::Tensor matrix = at::ones({side, side});
    std::vector<at::Tensor> tensors;
    std::vector<std::unique_ptr<Work>> works(kMicroBatches);
    for (int i = 0; i < kMicroBatches; ++i) tensors.push_back(at::zeros({bytes}, at::kByte));
    const auto receive = [&](int i) {
      if (comm.rank() == 1 && i < kMicroBatches) works[i] = Started(comm.Receive(kForward, tensors[i]));
    };
    receive(0);
    for (int i = 0; i < kMicroBatches; ++i) {
      receive(i + 1);
      if (comm.rank() == 1) Require(works[i]->Wait());
      Compute(matrix);
      if (comm.rank() == 0) works[i] = Started(comm.Send(kForward, tensors[i]));
    }
    for (auto& work : works) Require(work->Wait());
  });
}

double Median(std::vector<double> values) {
  std::sort(values.begin(), values.end());
  return values[values.size() / 2];
}

void Measure(int64_t bytes) {
  constexpr int64_t kSide = 256;
  constexpr int kRuns = 5;
  const double ping_pong = PingPong(bytes) / (2 * kMessages);
  double begin_seconds[2] = {};
  const double stream = Stream(bytes, begin_seconds) / kMessages;
  const double begin = (begin_seconds[0] + begin_seconds[1]) / kMessages;
  std::vector<double> alone, ratios;
  for (int run = 0; run < kRuns; ++run) {
    alone.push_back(ComputeAlone(kSide));
    ratios.push_back(alone.back() * (kMicroBatches + 1) / kMicroBatches / Pipeline(bytes, kSide));
  }
  std::printf(
      "{\"bytes\": %lld, \"ping_pong_us\": %.1f, \"stream_us\": %.1f, \"stream_mb_s\": %.0f, "
      "\"begin_us\": %.1f, \"compute_ms\": %.2f, \"pipeline_ratio\": %.3f}\n",
      static_cast<long long>(bytes), ping_pong * 1e6, stream * 1e6, static_cast<double>(bytes) / stream / 1e6,
      begin * 1e6, Median(alone) / kMicroBatches * 1e3, Median(ratios));
  std::fflush(stdout);
}

}  // namespace
}  // namespace gpipe::worker

int main() {
  for (int64_t kib : {1, 64, 256, 1024}) gpipe::worker::Measure(kib * 1024);
  return 0;
}
