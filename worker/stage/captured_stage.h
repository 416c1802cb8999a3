#ifndef GPIPE_WORKER_STAGE_CAPTURED_STAGE_H_
#define GPIPE_WORKER_STAGE_CAPTURED_STAGE_H_

#include <map>
#include <memory>
#include <optional>
#include <vector>

#include "worker/stage/recording.h"
#include "worker/stage/stage.h"

namespace gpipe::worker {

// A stage on a GPU that is recorded once, as CUDA graphs, and replayed: a host needs some 10 us to launch a kernel, of
// which a micro-batch of a language model has thousands, and no longer than that for a graph of them.
//
// The first mini-batch of each size, in training or not, runs as it is, and says which calls there are, in which order,
// on values of which sizes. Before the second one these calls are recorded, without being executed, and replayed from
// then on. What is given to a replay is copied to where the recording reads it, unless it lies there (Room). What it
// returns in training are the same tensors each time: who takes them queues what is done with them, on the current
// stream, before the next mini-batch begins. Without training a mini-batch begins while values of the last one are
// still sent: so they are copies.
//
// A mini-batch may be suspended between its forward and its backward passes, which are recorded together. What a
// replayed one keeps then lies in the memory of the recordings: so until it has ended, or is dropped, all others run as
// they are. One that is watched keeps nothing there: it is not watched any more when the next one for training begins
// and a later one has ended meanwhile, as it may be one of those that never go back.
//
// Where something cannot be recorded (a number that the host reads from the device, too little memory) the stage runs
// as it is from then on, and the worker's log says why. Nothing else can use the memory of recordings: where it is
// needed, for mini-batches of other sizes or for evaluation, they go, and are made again.
//
// Results are those of the stage as it is, bit for bit; a zero in a gradient may have the other sign.
class CapturedStage : public Stage {
 public:
  // `index` is the stage's in the plan, for messages.
  CapturedStage(std::unique_ptr<Stage> stage, int index, c10::Device device);

  const std::vector<CrossingValue>& incoming() const override { return stage_->incoming(); }
  const std::vector<CrossingValue>& outgoing() const override { return stage_->outgoing(); }
  const std::vector<OutputValue>& outputs() const override { return stage_->outputs(); }
  const std::vector<NamedTensor>& state() const override { return stage_->state(); }
  absl::Status Begin(MiniBatch mini_batch) override;
  absl::StatusOr<PassResults> Forward(int micro_batch, std::vector<at::Tensor> inputs, ForwardMode mode) override;
  absl::Status Recompute(int micro_batch) override;
  absl::StatusOr<std::vector<at::Tensor>> Backward(int micro_batch, std::vector<at::Tensor> gradients) override;
  at::TensorList Room(pipeline::Direction pass, int micro_batch) const override;
  absl::Status End() override;
  absl::Status Abandon() override;
  absl::Status Suspend(int64_t id) override;
  absl::Status Resume(int64_t id) override;
  absl::Status Drop(int64_t id) override;
  void KeepGradients(bool keep) override { stage_->KeepGradients(keep); }
  void AttachGradients() override { stage_->AttachGradients(); }
  int64_t peak_saved_bytes() const override;

 private:
  using Tensors = std::vector<at::Tensor>;

  // What the calls of a mini-batch depend on.
  struct Key {
    bool training = false;
    std::vector<int64_t> sizes;  // Of the micro-batches.

    friend auto operator<=>(const Key&, const Key&) = default;
  };
  struct Known {
    Recording recording;
    bool given_up = false;
    int64_t peak_saved_bytes = 0;
    int64_t bytes = 0;  // Of the device, that only this recording uses.
  };
  enum class Way { kAsItIs, kWatched, kReplayed };
  // A suspended mini-batch that is watched or replayed.
  struct Suspended {
    int64_t id = 0;
    Way way = Way::kAsItIs;
    Known* known = nullptr;
    MiniBatch mini_batch;
    bool overtaken = false;  // One that began later has ended, both ways.
    int64_t versions = 0;    // Of the parameters (VersionsOf).
  };

  // How the mini-batch will run; records it if it is time for that.
  Way ChooseWay();
  absl::Status Record();
  absl::Status RecordCalls();
  absl::Status RecordAccumulating();
  // The call as it is.
  absl::StatusOr<PassResults> Call(const StageCall& call, const Tensors& given);
  // The call in the mini-batch's way.
  absl::StatusOr<PassResults> Run(const StageCall& call, const Tensors& given);
  // A copy of what the call is given; where there is no memory for that, the mini-batch runs as it is.
  void Watch(const StageCall& call, const Tensors& given);
  void GiveUp(const absl::Status& why);
  // Ends the mini-batch that was being recorded, which is not executed either.
  void AbandonRecording();
  // The suspended mini-batch, which is watched, is one that runs as it is from now on.
  void StopWatching();
  // Lets recordings go if this mini-batch, which is for training and will not be replayed, might not fit beside them.
  void MakeRoom();
  // Lets all recordings go; the mini-batch at hand runs as it is.
  void Forget();
  // Gives the device back what the recordings had, of which there is none any more: a pool keeps it as long as it
  // lives.
  void RenewPool();
  absl::StatusOr<PassResults> Replay(const StageCall& call, const Tensors& given);
  bool captured(bool training) const;

  const std::unique_ptr<Stage> stage_;
  const int index_;
  const c10::Device device_;
  std::optional<GraphPool> pool_;  // There at all times.
  std::map<Key, Known> known_;

  Way way_ = Way::kAsItIs;
  Known* current_ = nullptr;  // Of this mini-batch, if it is watched or replayed.
  MiniBatch mini_batch_;      // Without its target.
  int64_t forward_id_ = 0;    // What the mini-batch that is run or recorded is suspended under.
  std::optional<Suspended> suspended_;
};

}  // namespace gpipe::worker

#endif  // GPIPE_WORKER_STAGE_CAPTURED_STAGE_H_
