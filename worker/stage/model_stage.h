#ifndef GPIPE_WORKER_STAGE_MODEL_STAGE_H_
#define GPIPE_WORKER_STAGE_MODEL_STAGE_H_

#include <torch/csrc/autograd/edge.h>

#include <map>
#include <memory>
#include <set>
#include <string>
#include <vector>

#include "worker/model/loss.h"
#include "worker/model/precision.h"
#include "worker/model/segment.h"
#include "worker/model/tensor_layout.h"
#include "worker/stage/stage.h"
#include "worker/stage/stage_gradients.h"

namespace gpipe::worker {

// All that a stage is made of, whatever the source of its model.
struct StageParts {
  std::vector<ModelLayer> layers;
  std::vector<CrossingValue> incoming;
  std::vector<CrossingValue> outgoing;
  std::vector<OutputValue> outputs;     // Last stage, else empty. A loss takes the first, and counts by the second.
  std::unique_ptr<Loss> loss;           // Last stage, in training.
  std::vector<std::string> frozen;      // Prefixes of parameter names.
  std::map<std::string, int> layer_of;  // By tensor, where it is not the ModelLayer's index.
  std::set<std::string> elsewhere;      // Tensors that an earlier worker has too.
  bool training = false;                // Whether parameters that are not frozen are trained.
  bool needs_backward = false;
  c10::Device device = c10::kCPU;
  Precision precision = {};
  Values* masters = nullptr;      // By name, of all stages of the worker; null: of this one.
  HeldGradients* held = nullptr;  // Of all stages of the worker, which it outlives; null: of this one.
};

// The stage that every model source ends in. Its contract is Stage's.
class ModelStage : public Stage {
 public:
  static absl::StatusOr<std::unique_ptr<ModelStage>> Create(StageParts parts);

  const std::vector<CrossingValue>& incoming() const override { return incoming_; }
  const std::vector<CrossingValue>& outgoing() const override { return outgoing_; }
  const std::vector<OutputValue>& outputs() const override { return outputs_; }
  const std::vector<NamedTensor>& state() const override { return state_; }
  absl::Status Begin(MiniBatch mini_batch) override;
  absl::StatusOr<PassResults> Forward(int micro_batch, std::vector<at::Tensor> inputs, ForwardMode mode) override;
  absl::Status Recompute(int micro_batch) override;
  absl::StatusOr<std::vector<at::Tensor>> Backward(int micro_batch, std::vector<at::Tensor> gradients) override;
  absl::Status End() override;
  absl::Status Abandon() override;
  absl::Status Suspend(int64_t id) override;
  absl::Status Resume(int64_t id) override;
  absl::Status Drop(int64_t id) override;
  void KeepGradients(bool keep) override { gradients_.Keep(state_, keep); }
  void AttachGradients() override { gradients_.Attach(state_); }
  int64_t peak_saved_bytes() const override { return peak_bytes_; }

 private:
  // What a micro-batch keeps until its backward.
  struct Saved {
    std::vector<at::Tensor> inputs;            // In the order of incoming.
    std::vector<at::Tensor> leaves;            // The same as roots of the graph; undefined where no gradient goes back.
    std::vector<torch::autograd::Edge> roots;  // In the order of outgoing, then the loss; invalid without gradient.
    bool has_graph = false;
    int64_t bytes = 0;
  };

  // What one run of the layers makes.
  struct Results {
    std::vector<at::Tensor> outgoing;
    std::vector<at::Tensor> outputs;
    at::Tensor loss;
    at::Tensor count;  // As Loss::Count; undefined when recomputing.
  };

  // A mini-batch between its forward and its backward passes.
  struct Suspended {
    MiniBatch mini_batch;
    std::vector<int64_t> offsets;
    std::map<int, Saved> saved;
    std::vector<at::Tensor> counts;
    int64_t saved_bytes = 0;
  };

  ModelStage(StageParts parts, Segment segment);
  void CollectState(const StageParts& parts);
  // The mini-batch at hand ends here, or for as long as it is suspended.
  absl::Status Close();

  absl::Status CheckForward(int micro_batch, ForwardMode mode) const;
  absl::StatusOr<std::vector<at::Tensor>> TakeInputs(int micro_batch, const std::vector<at::Tensor>& inputs) const;
  LayerContext ContextOf(int micro_batch, bool training, bool recomputing) const;
  int64_t SamplesOf(int micro_batch) const { return mini_batch_.micro_batch_sizes[micro_batch]; }
  // REQUIRES: there is a loss. Undefined, if it has no target.
  at::Tensor TargetOf(int micro_batch) const;

  absl::StatusOr<Results> Run(int micro_batch, const LayerContext& context, std::vector<at::Tensor> values) const;
  // Runs with gradients; the graph and its bytes go to `saved`. The results are detached.
  absl::StatusOr<Results> RunWithGraph(int micro_batch, const LayerContext& context, Saved& saved) const;
  absl::StatusOr<Results> RunWithoutGraph(int micro_batch, const LayerContext& context,
                                          std::vector<at::Tensor> values) const;
  absl::Status CheckGradients(const std::vector<at::Tensor>& outgoing) const;
  void Keep(int micro_batch, Saved saved);
  PassResults Leave(int micro_batch, Results results, ForwardMode mode) const;

  absl::Status RunBackward(int micro_batch, const Saved& saved, const std::vector<at::Tensor>& gradients);
  // The gradient of a micro-batch's loss: one, or what it weighs, times the mini-batch's loss scale.
  absl::StatusOr<at::Tensor> LossGradient(int micro_batch);
  absl::StatusOr<at::Tensor> LossWeight(int micro_batch);
  std::vector<at::Tensor> TakeInputGradients(Saved& saved) const;

  const Segment segment_;
  const std::vector<CrossingValue> incoming_;
  const std::vector<CrossingValue> outgoing_;
  const std::vector<OutputValue> outputs_;
  const std::unique_ptr<Loss> loss_;
  const bool needs_backward_;
  const c10::Device device_;
  std::vector<NamedTensor> state_;

  StageGradients gradients_;
  bool open_ = false;     // Between Begin and End.
  bool resumed_ = false;  // It was suspended before, when its batch statistics were committed.
  std::map<int64_t, Suspended> suspended_;
  MiniBatch mini_batch_;
  std::vector<int64_t> offsets_;  // First sample of each micro-batch.
  std::map<int, Saved> saved_;
  std::vector<at::Tensor> counts_;  // By micro-batch; undefined where it has not been forward, or the loss counts not.
  at::Tensor weights_;              // Of the micro-batches by these; undefined until the first backward.
  int64_t saved_bytes_ = 0;
  int64_t peak_bytes_ = 0;
};

}  // namespace gpipe::worker

#endif  // GPIPE_WORKER_STAGE_MODEL_STAGE_H_
