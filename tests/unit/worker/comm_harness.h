#ifndef GPIPE_TESTS_UNIT_WORKER_COMM_HARNESS_H_
#define GPIPE_TESTS_UNIT_WORKER_COMM_HARNESS_H_

#include <c10/core/Device.h>

#include <functional>
#include <memory>
#include <ostream>
#include <string>
#include <vector>

#include "worker/comm/communicator.h"
#include "worker/comm/rendezvous.h"

namespace gpipe::worker {

// What a test does as one of the ranks.
struct RankContext {
  int rank = 0;
  int size = 1;
  c10::Device device = c10::kCPU;
  std::unique_ptr<Communicator> comm;
  Rendezvous* side = nullptr;  // Apart from the communicator's: for the test's own steps.
  bool is_process = false;

  // Waits until all ranks have come here. `name` is used once in a test.
  void Barrier(const std::string& name) const;
  // Ends this rank's part in the traffic without a word: kill -9 of its process, or its communicator destroyed.
  void Vanish();
};

using RankBody = std::function<void(RankContext&)>;

// Runs a test's body on connected ranks.
class CommHarness {
 public:
  virtual ~CommHarness() = default;

  // Returns when all ranks have ended. `vanishing` is the rank whose body calls Vanish, if any does.
  virtual void Run(int size, const std::vector<Channel>& channels, const RankBody& body, int vanishing = -1) = 0;
};

// One way of running the suite; the name is the parameter's name in the tests.
struct HarnessCase {
  std::string name;
  std::function<std::unique_ptr<CommHarness>()> make;

  friend void PrintTo(const HarnessCase& harness, std::ostream* out) { *out << harness.name; }
};

// Threads over the in-process communicator, the same wrapped by a fault injector, threads and processes over Gloo, and,
// when there is a GPU, processes over NCCL that share it.
std::vector<HarnessCase> AllHarnesses();

// True in a process that is one rank of a test which its parent runs.
bool IsRankProcess();

}  // namespace gpipe::worker

#endif  // GPIPE_TESTS_UNIT_WORKER_COMM_HARNESS_H_
