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
  absl::Status Execute(const pipeline::Action& action);

  // INTERNAL when something was made and not used.
  absl::Status End();

 private:
  MiniBatch MiniBatchFor(const HostedStage& hosted) const;
  absl::Status EndStages();
  // What the loss is taken against.
  at::Tensor Target() const;
  absl::Status Dispatch(const pipeline::Action& action);
  absl::Status Forward(const pipeline::Action& action);
  absl::Status Recompute(const pipeline::Action& action);
  absl::Status Backward(const pipeline::Action& action);
  absl::Status Send(const pipeline::Action& action);
  absl::Status Receive(const pipeline::Action& action);
  absl::Status ReduceGradients(const pipeline::Action& action);
  absl::Status Update(const pipeline::Action& action);

  absl::StatusOr<Values> ForwardInputs(const HostedStage& stage, int micro_batch);
  absl::StatusOr<Values> OutputGradients(const HostedStage& stage, int micro_batch);
  // Puts each value where its next user takes it.
  absl::Status KeepOutputs(const HostedStage& stage, int micro_batch, const Values& outputs);
  absl::Status KeepInputGradients(const HostedStage& stage, int micro_batch, const Values& gradients);
  void KeepResults(int micro_batch, const Values& outputs);
  // Rows of a tensor that somebody wants whole. Two of the same add up.
  void KeepRows(const std::string& name, int micro_batch, const at::Tensor& rows);
  at::Tensor MicroBatchOf(const at::Tensor& mini_batch, int micro_batch) const;
  ForwardMode ModeOf(const pipeline::Action& action) const;
  absl::Status EnterForward(const pipeline::Action& action) const;

  template <typename Compute>
  auto Timed(const pipeline::Action& action, Compute compute);

  const Parts parts_;
  ValueStore values_;
  RoundPlan round_;
  Batch batch_;
  RoundRecord* record_ = nullptr;
};

}  // namespace gpipe::worker

#endif  // GPIPE_WORKER_ENGINE_ACTION_EXECUTOR_H_
