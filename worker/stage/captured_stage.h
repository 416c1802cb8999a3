#ifndef GPIPE_WORKER_STAGE_CAPTURED_STAGE_H_
#define GPIPE_WORKER_STAGE_CAPTURED_STAGE_H_

#include <map>
#include <memory>
#include <vector>

#include "worker/stage/recording.h"
#include "worker/stage/stage.h"

namespace gpipe::worker {

// A stage on a GPU whose training is recorded once, as CUDA graphs, and replayed: a host needs some 10 us to launch a
// kernel, of which a micro-batch of a language model has thousands, and no longer than that for a graph of them.
//
// The first training mini-batch of each size runs as it is, and says which calls there are, in which order, on values
// of which sizes. Before the second one these calls are recorded, without being executed, and replayed from then on.
// What is given to a replay is copied to where the recording reads it. What it returns are the same tensors each time:
// who takes them queues what is done with them, on the current stream, before the next mini-batch begins.
//
// Where something cannot be recorded (a number that the host reads from the device, too little memory) the stage runs
// as it is from then on, and the worker's log says why. Evaluation and inference run as they are. Nothing else can use
// the memory of recordings: where it is needed, for mini-batches of other sizes or for evaluation, they go, and are
// made again.
//
// Results are those of the stage as it is, bit for bit; a zero in a gradient may have the other sign.
class CapturedStage : public Stage {
 public:
  // `index` is the stage's in the plan, for messages.
  CapturedStage(std::unique_ptr<Stage> stage, int index, c10::Device device);

  const std::vector<NamedTensor>& state() const override { return stage_->state(); }
  absl::Status Begin(MiniBatch mini_batch) override;
  absl::StatusOr<Values> Forward(int micro_batch, Values inputs, ForwardMode mode) override;
  absl::Status Recompute(int micro_batch) override;
  absl::StatusOr<Values> Backward(int micro_batch, Values gradients) override;
  absl::Status End() override;
  absl::Status Abandon() override;
  // A mini-batch that is suspended has run as it is: recordings have room for one at a time.
  absl::Status Suspend(int64_t id) override { return stage_->Suspend(id); }
  absl::Status Resume(int64_t id) override { return stage_->Resume(id); }
  absl::Status Drop(int64_t id) override { return stage_->Drop(id); }
  void KeepGradients(bool keep) override { stage_->KeepGradients(keep); }
  int64_t peak_saved_bytes() const override;

 private:
  // Recordings by the sizes of the micro-batches.
  struct Known {
    Recording recording;
    bool given_up = false;
    int64_t peak_saved_bytes = 0;
    int64_t bytes = 0;  // Of the device, that only this recording uses.
  };
  enum class Way { kAsItIs, kWatched, kReplayed };

  // How the mini-batch will run; records it if it is time for that.
  Way WayOf(const MiniBatch& mini_batch);
  absl::Status Record(const MiniBatch& mini_batch);
  absl::StatusOr<Values> Call(const StageCall& call, const MiniBatch& mini_batch, const Values& given);
  void GiveUp(const absl::Status& why);
  // Lets recordings go if a mini-batch of this size, which will not be replayed, might not fit beside them.
  void MakeRoom(const MiniBatch& mini_batch);
  void Forget();
  absl::StatusOr<Values> Replay(const StageCall& call, const Values& given);
  bool captured() const;

  const std::unique_ptr<Stage> stage_;
  const int index_;
  const c10::Device device_;
  GraphPool pool_;
  std::map<std::vector<int64_t>, Known> known_;

  Way way_ = Way::kAsItIs;
  Known* current_ = nullptr;  // Of this mini-batch, if it is watched or replayed.
  MiniBatch mini_batch_;      // Without its target.
};

}  // namespace gpipe::worker

#endif  // GPIPE_WORKER_STAGE_CAPTURED_STAGE_H_
