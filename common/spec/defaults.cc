#include "common/spec/client_data.h"
#include "common/spec/target_types.h"
#include "common/spec/validator.h"

namespace gpipe::spec {
namespace {

constexpr int64_t kDefaultInferBatch = 64;
constexpr int64_t kKeepCheckpoints = 2;

using Sizes = google::protobuf::RepeatedField<int64_t>;

// Two numbers, height and width, out of none, one or two.
void FillPair(Sizes& sizes, const Sizes& fallback) {
  if (sizes.empty()) sizes = fallback;
  if (sizes.size() == 1) sizes.Add(sizes[0]);
}

void FillPair(Sizes& sizes, int64_t fallback) {
  Sizes one;
  one.Add(fallback);
  FillPair(sizes, one);
}

void Fill(v1::Linear& layer) {
  if (!layer.has_bias()) layer.set_bias(true);
}

void Fill(v1::Conv2d& layer) {
  FillPair(*layer.mutable_kernel_size(), 1);
  FillPair(*layer.mutable_stride(), 1);
  FillPair(*layer.mutable_padding(), 0);
  FillPair(*layer.mutable_dilation(), 1);
  if (!layer.has_groups()) layer.set_groups(1);
  if (!layer.has_bias()) layer.set_bias(true);
}

void Fill(v1::LayerNorm& layer) {
  if (!layer.has_eps()) layer.set_eps(1e-5);
  if (!layer.has_elementwise_affine()) layer.set_elementwise_affine(true);
  if (!layer.has_bias()) layer.set_bias(true);
}

void Fill(v1::BatchNorm& layer) {
  if (!layer.has_eps()) layer.set_eps(1e-5);
  if (!layer.has_momentum()) layer.set_momentum(0.1);
  if (!layer.has_affine()) layer.set_affine(true);
  if (!layer.has_track_running_stats()) layer.set_track_running_stats(true);
}

template <typename Pool>
void FillPool(Pool& layer) {
  FillPair(*layer.mutable_kernel_size(), 1);
  FillPair(*layer.mutable_stride(), layer.kernel_size());
  FillPair(*layer.mutable_padding(), 0);
}

void Fill(v1::TransformerEncoderLayer& layer) {
  if (!layer.has_dim_feedforward()) layer.set_dim_feedforward(2048);
  if (!layer.has_dropout()) layer.set_dropout(0.1);
  if (layer.activation().empty()) layer.set_activation("relu");
  if (!layer.has_layer_norm_eps()) layer.set_layer_norm_eps(1e-5);
  if (!layer.has_bias()) layer.set_bias(true);
}

void Fill(v1::Flatten& layer) {
  if (!layer.has_start_dim()) layer.set_start_dim(1);
  if (!layer.has_end_dim()) layer.set_end_dim(-1);
}

void Fill(v1::Layer& layer) {
  if (layer.has_linear()) Fill(*layer.mutable_linear());
  if (layer.has_conv_2d()) Fill(*layer.mutable_conv_2d());
  if (layer.has_layer_norm()) Fill(*layer.mutable_layer_norm());
  if (layer.has_batch_norm_1d()) Fill(*layer.mutable_batch_norm_1d());
  if (layer.has_batch_norm_2d()) Fill(*layer.mutable_batch_norm_2d());
  if (layer.has_dropout() && !layer.dropout().has_p()) layer.mutable_dropout()->set_p(0.5);
  if (layer.has_gelu() && layer.gelu().approximate().empty()) layer.mutable_gelu()->set_approximate("none");
  if (layer.has_softmax() && !layer.softmax().has_dim()) layer.mutable_softmax()->set_dim(-1);
  if (layer.has_max_pool_2d()) {
    FillPool(*layer.mutable_max_pool_2d());
    FillPair(*layer.mutable_max_pool_2d()->mutable_dilation(), 1);
  }
  if (layer.has_avg_pool_2d()) {
    FillPool(*layer.mutable_avg_pool_2d());
    if (!layer.avg_pool_2d().has_count_include_pad()) layer.mutable_avg_pool_2d()->set_count_include_pad(true);
  }
  if (layer.has_flatten()) Fill(*layer.mutable_flatten());
  if (layer.has_transformer_encoder_layer()) Fill(*layer.mutable_transformer_encoder_layer());
  if (layer.has_pop_cat() && !layer.pop_cat().has_dim()) layer.mutable_pop_cat()->set_dim(1);
}

void Fill(v1::Pipeline& pipeline) {
  if (!pipeline.has_chunks()) pipeline.set_chunks(1);
  if (pipeline.checkpoint() == v1::CHECKPOINT_UNSPECIFIED) pipeline.set_checkpoint(v1::CHECKPOINT_AUTO);
  if (pipeline.schedule() == v1::SCHEDULE_KIND_UNSPECIFIED) pipeline.set_schedule(v1::SCHEDULE_KIND_GPIPE);
  if (pipeline.capture() == v1::CAPTURE_UNSPECIFIED) pipeline.set_capture(v1::CAPTURE_AUTO);
  if (pipeline.device() == v1::DEVICE_UNSPECIFIED) pipeline.set_device(v1::DEVICE_ANY);
}

void Fill(v1::Dataset& dataset, const v1::Loss& loss) {
  if (dataset.has_client()) {
    dataset.clear_inputs();
    for (const v1::ClientInput& input : dataset.client().inputs()) dataset.add_inputs(input.name());
  }
  if (dataset.inputs().empty()) dataset.add_inputs("input");
  if (dataset.target().empty() && HasTarget(loss)) dataset.set_target("target");
}

void Fill(v1::Adam& adam, double weight_decay) {
  if (!adam.has_lr()) adam.set_lr(0.001);
  if (adam.betas().empty()) {
    adam.add_betas(0.9);
    adam.add_betas(0.999);
  }
  if (!adam.has_eps()) adam.set_eps(1e-8);
  if (!adam.has_weight_decay()) adam.set_weight_decay(weight_decay);
}

void Fill(v1::ModelOutput& loss) {
  if (loss.mean_of() == v1::LOSS_MEAN_TARGETS && !loss.has_ignore_index()) loss.set_ignore_index(-100);
}

void Fill(v1::Train& train) {
  if (train.dataset().has_client()) train.mutable_loss()->mutable_client();
  Fill(*train.mutable_dataset(), train.loss());
  if (train.has_evaluate()) Fill(*train.mutable_evaluate()->mutable_dataset(), train.loss());
  if (train.optimizer().has_adam()) Fill(*train.mutable_optimizer()->mutable_adam(), 0);
  if (train.optimizer().has_adamw()) Fill(*train.mutable_optimizer()->mutable_adamw(), 0.01);
  v1::LrSchedule& schedule = *train.mutable_lr_schedule();
  if (schedule.kind_case() == v1::LrSchedule::KIND_NOT_SET) schedule.mutable_constant();
  if (schedule.has_step() && !schedule.step().has_gamma()) schedule.mutable_step()->set_gamma(0.1);
  if (!train.has_keep_checkpoints()) train.set_keep_checkpoints(kKeepCheckpoints);
  if (!train.has_grad_norm()) train.set_grad_norm(true);
  if (train.precision() == v1::PRECISION_UNSPECIFIED) train.set_precision(v1::PRECISION_FP32);
  if (train.loss().has_model_output()) Fill(*train.mutable_loss()->mutable_model_output());
  if (!train.loss().has_cross_entropy()) return;
  v1::CrossEntropy& loss = *train.mutable_loss()->mutable_cross_entropy();
  if (!loss.has_ignore_index()) loss.set_ignore_index(-100);
  if (!loss.has_class_dim()) loss.set_class_dim(1);
}

}  // namespace

v1::JobSpec WithDefaults(const v1::JobSpec& spec) {
  v1::JobSpec filled = spec;
  for (v1::Layer& layer : *filled.mutable_model()->mutable_sequential()) Fill(layer);
  Fill(*filled.mutable_pipeline());
  if (!filled.has_max_restarts()) filled.set_max_restarts(HasClientData(filled) ? 0 : kDefaultMaxRestarts);
  if (filled.has_train()) Fill(*filled.mutable_train());
  if (filled.has_infer() && filled.infer().batch_size() == 0)
    filled.mutable_infer()->set_batch_size(kDefaultInferBatch);
  return filled;
}

}  // namespace gpipe::spec
