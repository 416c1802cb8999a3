#ifndef GPIPE_WORKER_ENGINE_ATTEMPT_H_
#define GPIPE_WORKER_ENGINE_ATTEMPT_H_

#include <c10/core/Device.h>

#include <filesystem>
#include <memory>
#include <optional>
#include <stop_token>
#include <string>
#include <string_view>

#include "absl/status/statusor.h"
#include "gpipe/v1/worker_session.pb.h"
#include "worker/checkpoint/checkpoint_writer.h"
#include "worker/checkpoint/resume.h"
#include "worker/checkpoint/shard_writer.h"
#include "worker/checkpoint/weight_files.h"
#include "worker/comm/connect.h"
#include "worker/data/artifacts.h"
#include "worker/data/client_exchange.h"
#include "worker/data/file_cache.h"
#include "worker/data/output_file.h"
#include "worker/data/range_cache.h"
#include "worker/data/read_ahead.h"
#include "worker/data/shared_files.h"
#include "worker/engine/attempt_files.h"
#include "worker/engine/beacon.h"
#include "worker/engine/channels.h"
#include "worker/engine/clock_offset.h"
#include "worker/engine/hosted_stages.h"
#include "worker/engine/message_sink.h"
#include "worker/engine/round_plan.h"
#include "worker/engine/transfer_queue.h"
#include "worker/stage/optimizer.h"

namespace gpipe::worker {

// One worker's part of one attempt, from the assignment to the results. The methods are called in the order in which
// they stand, each at most once, by the engine's thread. Destroying it lets go of everything.
class Attempt {
 public:
  // What the worker lends to every attempt; outlives it.
  struct Environment {
    c10::Device device = c10::kCPU;
    std::string data_address;
    std::filesystem::path folder;     // For files of this attempt.
    std::filesystem::path trace_dir;  // Empty: no trace.
    Connector connect;
    FileCache& cache;
    Artifacts& artifacts;
    RangeCache& ranges;  // For what is read of archives, weights and checkpoints.
    MessageSink& sink;
    const ClockOffset* clock = nullptr;  // Of the orchestrator's clock; null: not known.
    SharedFiles shared = SharedFiles();
    int64_t max_shard_bytes = safetensors::kMaxShardBytes;  // Of models and checkpoints.
  };

  Attempt(const Environment& environment, v1::Assignment assignment, const Beacon& beacon);
  ~Attempt();
  Attempt(const Attempt&) = delete;
  Attempt& operator=(const Attempt&) = delete;

  // Fetches files (the archive, weights and checkpoints stay where they are, and are read as they are used), builds
  // stages with their weights, the optimizer and the data source.
  absl::Status Prepare();

  // Connects with the peers; blocks until all are there.
  absl::Status Join();

  // Executes all rounds as they are granted. Checkpoints may still be on their way when it returns.
  absl::Status Run();

  // Waits for the last checkpoint, and uploads the results.
  absl::StatusOr<v1::Finished> Finish();

  // It failed: breaks the connections, so that no peer waits for this worker.
  void Abandon(const absl::Status& reason);

 private:
  // A line of the worker's log about this attempt.
  void Say(std::string_view words) const;
  absl::Status Build();
  absl::Status OpenArchive();
  // Whether those of the archive, or others that LoadState brings.
  InitialValues StartValues() const;
  absl::Status LoadState();
  absl::Status LoadInto(const std::vector<NamedTensor>& state);
  absl::Status OpenData();
  // By the thread of data_.
  absl::StatusOr<std::optional<pipeline::Round>> NextToRead();
  absl::Status CreateOptimizer();
  absl::Status CreateOutput();
  absl::Status OpenExchange();
  void CreateCheckpoints();
  // Begins one; the rest is done beside the rounds that follow.
  absl::Status BeginCheckpoint(int64_t step);
  // The thread of checkpoints_.
  absl::Status SaveCheckpoint(const TrainingState& copy, const std::stop_token& stop);
  // All steps are done, and an evaluation is to come: what it may fail at must not cost the model.
  absl::Status StoreModel();
  absl::Status WriteModel();
  // Of its part of a checkpoint, or of the final model.
  ShardOptions OptionsFor(std::optional<int64_t> step, std::stop_token stop) const;
  // Parameters and buffers as the files of a model hold them.
  std::vector<NamedTensor> SavedState() const;
  std::vector<NamedTensor> FinalState() const;
  // The other names of a tensor of the model.
  std::vector<std::string> AliasesOf(const std::string& name) const;

  const Environment environment_;
  const v1::Assignment assignment_;
  const Beacon beacon_;
  AttemptFiles files_;
  const Precision precision_;
  int first_stage_ = 0;  // Of this worker, for messages.

  std::optional<ProgramTable> programs_;
  std::unique_ptr<Archive> archive_;             // Of an exported model.
  std::unique_ptr<Archive> evaluation_archive_;  // The same in evaluation, where the plan has that.
  std::optional<HostedStages> stages_;
  std::unique_ptr<LossScale> loss_scale_;  // Null but in fp16.
  std::unique_ptr<Optimizer> optimizer_;
  std::unique_ptr<ReadAhead> data_;         // Null: this worker reads none, or a client gives it.
  std::optional<ClientExchange> exchange_;  // With client data.
  std::optional<OutputFile> output_;
  google::protobuf::RepeatedPtrField<v1::ArtifactRef> model_;  // The final one, once it is uploaded.
  ChannelMap channels_;
  std::unique_ptr<Communicator> communicator_;
  std::optional<TransferQueue> transfers_;
  std::optional<CheckpointWriter> checkpoints_;  // Of a job's own training. Last: its thread uses the others.
};

}  // namespace gpipe::worker

#endif  // GPIPE_WORKER_ENGINE_ATTEMPT_H_
