#ifndef GPIPE_TESTS_UNIT_WORKER_TEST_CLUSTER_H_
#define GPIPE_TESTS_UNIT_WORKER_TEST_CLUSTER_H_

#include <map>
#include <memory>
#include <string>
#include <vector>

#include "absl/synchronization/mutex.h"
#include "common/file.h"
#include "common/safetensors/shard_names.h"
#include "tests/unit/worker/memory_artifacts.h"
#include "tests/unit/worker/recording_sink.h"
#include "tests/unit/worker/test_plan.h"
#include "worker/comm/communicator.h"
#include "worker/engine/engine.h"

namespace gpipe::worker {

// Workers that are engines in this process, with in-process communicators; the test is the orchestrator.
class TestCluster {
 public:
  // `failpoints` by worker, as in GPIPE_FAILPOINT.
  explicit TestCluster(int workers, const std::map<int, std::string>& failpoints = {},
                       int64_t max_shard_bytes = safetensors::kMaxShardBytes);
  // Waits until every worker is idle.
  ~TestCluster();

  // Begins an attempt on the first workers of the cluster. The next one gets the next number.
  void Prepare(const v1::JobSpec& spec, const Cut& cut) { Prepare(spec, MakePlan(spec, cut), cut.workers(), {}); }
  void Prepare(const v1::JobSpec& spec, const v1::Plan& plan, int workers, const v1::Assignment& resume);
  // The same for an attempt that measures the links between the first workers.
  void MeasureLinks(int workers);
  v1::LinksMeasured WaitForLinks(int worker);
  void Grant(int64_t round, int cycle);
  void GrantAll() { Grant(1 << 30, 0); }
  void Abort(const std::string& reason);
  void Release();

  // Waits until all workers have Finished, releases them, and waits until they have answered.
  std::vector<v1::Finished> Finish();
  // Waits for the worker's Failed.
  v1::Failed WaitForFailure(int worker);
  void WaitForReleased(int worker);

  Engine& engine(int worker) { return *engines_[worker]; }
  RecordingSink& sink(int worker) { return *sinks_[worker]; }
  MemoryArtifacts& artifacts() { return artifacts_; }
  const v1::AttemptId& attempt() const { return attempt_; }

  // Of all messages of the current attempt.
  std::vector<v1::RoundDone> Rounds(int worker);
  std::vector<v1::ActionDone> Actions(int worker);  // They tell times of this process's steady clock.
  std::vector<v1::Evaluation> Evaluations();
  std::vector<v1::CheckpointShard> Shards(int64_t step);

  // Tensors of safetensors files as raw bytes by name.
  std::map<std::string, std::string> Tensors(const std::vector<v1::ArtifactRef>& files);

 private:
  absl::StatusOr<std::unique_ptr<Communicator>> Connect(int worker);
  void BeginAttempt(int workers, std::vector<Channel> channels);

  TemporaryFolder folder_;
  MemoryArtifacts artifacts_;
  ClockOffset clock_;
  std::vector<std::unique_ptr<RecordingSink>> sinks_;
  absl::Mutex mutex_;
  std::vector<std::unique_ptr<Communicator>> communicators_;  // Of the current attempt, until taken.
  std::vector<std::unique_ptr<Engine>> engines_;
  v1::AttemptId attempt_;
  int workers_ = 0;  // Of the current attempt.
  std::vector<size_t> first_message_;
};

// Trains to the end with everything granted.
struct TrainingResult {
  std::vector<double> losses, rates;
  std::vector<std::vector<double>> grad_squares;       // By step, by layer.
  std::vector<std::pair<double, double>> evaluations;  // Loss and accuracy.
  std::map<std::string, std::string> parameters;
};
TrainingResult Train(const v1::JobSpec& spec, const Cut& cut);

}  // namespace gpipe::worker

#endif  // GPIPE_TESTS_UNIT_WORKER_TEST_CLUSTER_H_
