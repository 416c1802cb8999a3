// batch_norm_1d and batch_norm_2d, with torchgpipe's deferred running statistics.
#include <ATen/ATen.h>
#include <torch/csrc/autograd/grad_mode.h>

#include "worker/model/channel_statistics.h"
#include "worker/model/checks.h"
#include "worker/model/layers.h"

namespace gpipe::worker {
namespace {

class BatchNorm : public UnaryLayer {
 public:
  BatchNorm(const v1::BatchNorm& spec, int spatial_dims, const LayerOptions& options)
      : features_(spec.num_features()),
        spatial_dims_(spatial_dims),
        eps_(spec.eps()),
        momentum_(spec.momentum()),
        tracks_(spec.track_running_stats()),
        deferred_(options.deferred_batch_norm) {
    ParameterSource& source = options.parameters;
    if (spec.affine()) {
      weight_ = AddParameter("weight", source.Constant({features_}, 1));
      bias_ = AddParameter("bias", source.Constant({features_}, 0));
    }
    if (!tracks_) return;
    mean_ = AddBuffer("running_mean", source.Constant({features_}, 0));
    variance_ = AddBuffer("running_var", source.Constant({features_}, 1));
    batches_ = AddBuffer("num_batches_tracked", source.Counter());
  }

  void EndMiniBatch() override {
    if (pending_.count == 0) return;
    Commit(pending_);
    pending_ = {};
  }

 protected:
  at::Tensor Apply(const LayerContext& context, const at::Tensor& x) override {
    CheckInput(x);
    if (tracks_ && !context.training) return Normalise(x, mean_, variance_, /*own_statistics=*/false);
    CheckMoreThanOneValue(x);
    if (!tracks_ || context.recomputing) return Normalise(x, {}, {}, true);
    if (deferred_) {
      pending_.Merge(ChannelStatistics::Of(x));
      return Normalise(x, {}, {}, true);
    }
    if (Cumulative()) {
      Commit(ChannelStatistics::Of(x));
      return Normalise(x, {}, {}, true);
    }
    Count();
    return Normalise(x, mean_, variance_, true);
  }

 private:
  // Its kernels take parameters and statistics in fp32 beside values in half of that, on CPUs and GPUs alike.
  bool keeps_type() const override { return true; }

  // torch.nn's momentum=None.
  bool Cumulative() const { return momentum_ < 0; }

  at::Tensor Normalise(const at::Tensor& x, const at::Tensor& mean, const at::Tensor& variance, bool own_statistics) {
    return at::batch_norm(x, weight_, bias_, mean, variance, own_statistics, Cumulative() ? 0 : momentum_, eps_,
                          /*cudnn_enabled=*/true);
  }

  void Count() {
    torch::autograd::AutoGradMode no_grad(false);
    batches_.add_(1);
  }

  // On the device: reading the count back would make the host wait.
  void Commit(const ChannelStatistics& statistics) {
    torch::autograd::AutoGradMode no_grad(false);
    Count();
    const at::Tensor share =
        Cumulative() ? batches_.to(mean_.scalar_type()).reciprocal() : at::full({}, momentum_, mean_.options());
    statistics.MoveTo(mean_, variance_, share);
  }

  void CheckInput(const at::Tensor& x) const {
    CheckFloating(x);
    if (spatial_dims_ == 2) {
      CheckRank(x, 4, "[N, C, H, W]");
    } else {
      TORCH_CHECK_VALUE(x.dim() == 2 || x.dim() == 3, "expects [N, C] or [N, C, L], gets ", ShapeText(x));
    }
    CheckSize(x, 1, features_, "channels");
  }

  const int64_t features_;
  const int spatial_dims_;
  const double eps_;
  const double momentum_;
  const bool tracks_;
  const bool deferred_;
  at::Tensor weight_, bias_;
  at::Tensor mean_, variance_, batches_;
  ChannelStatistics pending_;  // Of this mini-batch's micro-batches so far; deferred only.
};

}  // namespace

std::unique_ptr<Layer> MakeBatchNorm(const v1::BatchNorm& spec, int spatial_dims, const LayerOptions& options) {
  return std::make_unique<BatchNorm>(spec, spatial_dims, options);
}

}  // namespace gpipe::worker
