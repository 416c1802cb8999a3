#ifndef GPIPE_WORKER_ENGINE_ACTION_EXECUTOR_H_
#define GPIPE_WORKER_ENGINE_ACTION_EXECUTOR_H_

#include <cstdint>
#include <memory>

#include "absl/status/statusor.h"
#include "gpipe/v1/worker_session.pb.h"
#include "worker/checkpoint/checkpoint_writer.h"
#include "worker/comm/communicator.h"
#include "worker/data/data_source.h"
#include "worker/engine/beacon.h"
#include "worker/engine/hosted_stages.h"
#include "worker/engine/round_record.h"
#include "worker/engine/shared_gradients.h"
#include "worker/engine/transfer_queue.h"
#include "worker/engine/value_store.h"
#include "worker/stage/optimizer.h"

namespace gpipe::worker {

// Does one action after the other, as the round's row says. Used by the engine's thread only.
class ActionExecutor {
 public:
  // What an attempt is made of; all of it outlives the executor. `optimizer` is null in inference, `loss_scale` but in
  // training in fp16.
  struct Parts {
    const v1::JobSpec& spec;
    const v1::Plan& plan;
    HostedStages& stages;
    Optimizer* optimizer;
    LossScale* loss_scale;
    const SharedGradients& shared_gradients;
    Communicator& communicator;
    TransferQueue& transfers;
    CheckpointWriter* checkpoints;  // Null where there are none: in inference, and with client data.
    Beacon beacon;
  };

  explicit ActionExecutor(Parts parts) : parts_(parts) {}

  // A round begins with these samples; what it makes goes into `record`, which outlives the round.
  absl::Status Begin(const RoundPlan& plan, Batch batch, RoundRecord& record);

  // Errors say which stage did what in which step.
  absl::Status Execute(const Step& step);

  // Where a RECV's values are best received, for PostReceive; only for what is received on the current stream's behalf
  // from now on.
  std::vector<at::Tensor> RoomFor(const Step& step) const;

  // INTERNAL when something was made and not used.
  absl::Status End();

 private:
  MiniBatch MiniBatchFor(const HostedStage& hosted) const;
  // What of the round's samples each of the stages is given.
  void TakeSamples();
  absl::Status EndStages();
  // What the loss is taken against.
  at::Tensor Target() const;
  absl::Status Dispatch(const Step& step);
  absl::Status Forward(const pipeline::Action& action);
  absl::Status Recompute(const pipeline::Action& action);
  absl::Status Backward(const pipeline::Action& action);
  absl::Status Send(const Step& step);
  absl::Status Receive(const Step& step);
  absl::Status ReduceGradients(const pipeline::Action& action);
  absl::Status Update(const pipeline::Action& action);

  const HostedStage& StageOf(const pipeline::Action& action) const {
    return parts_.stages.Find(action.stage, round_.round.kind);
  }
  absl::StatusOr<std::vector<at::Tensor>> ForwardInputs(const HostedStage& stage, int micro_batch);
  absl::StatusOr<std::vector<at::Tensor>> OutputGradients(const HostedStage& stage, int micro_batch);
  // Puts each value where its next users take it.
  void KeepOutputs(const HostedStage& stage, int micro_batch, const std::vector<at::Tensor>& values);
  void KeepInputGradients(const HostedStage& stage, int micro_batch, const std::vector<at::Tensor>& gradients);
  void KeepResults(const HostedStage& stage, int micro_batch, const PassResults& made);
  // Rows of a tensor that somebody wants whole. Two of the same add up.
  void KeepRows(const std::string& name, int micro_batch, const at::Tensor& rows);
  at::Tensor MicroBatchOf(const at::Tensor& mini_batch, int micro_batch) const;
  ForwardMode ModeOf(const pipeline::Action& action) const;
  absl::Status EnterForward(const pipeline::Action& action) const;

  template <typename Compute>
  auto Timed(const pipeline::Action& action, Compute compute);

  const Parts parts_;
  // An input of the model that a stage reads.
  struct Given {
    at::Tensor mini_batch;
    bool whole = false;  // It has no samples: the same for all micro-batches.
  };

  ValueStore values_;
  RoundPlan round_;
  Batch batch_;
  std::vector<std::vector<Given>> samples_;  // By hosted stage, in the order of its inputs.
  RoundRecord* record_ = nullptr;
};

}  // namespace gpipe::worker

#endif  // GPIPE_WORKER_ENGINE_ACTION_EXECUTOR_H_
