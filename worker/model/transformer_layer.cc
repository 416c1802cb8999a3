// transformer_encoder_layer: torch.nn.TransformerEncoderLayer(batch_first=True).
#include <ATen/ATen.h>

#include <cmath>

#include "worker/model/accumulating.h"
#include "worker/model/attention_gradient.h"
#include "worker/model/checks.h"
#include "worker/model/dropout.h"
#include "worker/model/layers.h"

namespace gpipe::worker {
namespace {

// A projection y = x W^T + b inside the layer.
struct Projection {
  at::Tensor weight;
  at::Tensor bias;
  at::Tensor operator()(const at::Tensor& x) const { return AccumulatingLinear(x, weight, bias); }
};

struct Normalisation {
  at::Tensor weight;
  at::Tensor bias;
  double eps;
  at::Tensor operator()(const at::Tensor& x) const { return at::layer_norm(x, weight.sizes(), weight, bias, eps); }
};

class TransformerEncoderLayer : public UnaryLayer {
 public:
  TransformerEncoderLayer(const v1::TransformerEncoderLayer& spec, const LayerOptions& options)
      : index_(options.index),
        width_(spec.d_model()),
        heads_(spec.nhead()),
        dropout_(spec.dropout()),
        gelu_(spec.activation() == "gelu"),
        norm_first_(spec.norm_first()),
        has_bias_(spec.bias()) {
    ParameterSource& source = options.parameters;
    TORCH_CHECK_VALUE(heads_ > 0 && width_ % heads_ == 0, "d_model ", width_, " is not a multiple of nhead ", heads_);
    AddAttention(source);
    linear1_ = AddProjection(source, "linear1", width_, spec.dim_feedforward());
    linear2_ = AddProjection(source, "linear2", spec.dim_feedforward(), width_);
    norm1_ = AddNorm(source, "norm1", spec.layer_norm_eps());
    norm2_ = AddNorm(source, "norm2", spec.layer_norm_eps());
  }

 protected:
  at::Tensor Apply(const LayerContext& context, const at::Tensor& x) override {
    CheckType(x, in_projection_.weight.scalar_type());
    CheckRank(x, 3, "[N, length, d_model]");
    CheckSize(x, 2, width_, "features");
    if (norm_first_) {
      const at::Tensor mixed = x + Attend(context, norm1_(x));
      return mixed + FeedForward(context, norm2_(mixed));
    }
    const at::Tensor mixed = norm1_(x + Attend(context, x));
    return norm2_(mixed + FeedForward(context, mixed));
  }

 private:
  // The dropouts of this layer, by place.
  enum Place { kAttentionWeights, kAttentionOutput, kHidden, kFeedForwardOutput };

  // Drawn in this order; MultiheadAttention uses xavier_uniform_ for the packed projection and zero biases.
  void AddAttention(ParameterSource& source) {
    const double bound = std::sqrt(6.0 / static_cast<double>(4 * width_));
    in_projection_.weight = AddParameter("self_attn.in_proj_weight", source.Uniform({3 * width_, width_}, bound));
    if (has_bias_) in_projection_.bias = AddParameter("self_attn.in_proj_bias", source.Constant({3 * width_}, 0));
    out_projection_.weight = AddParameter("self_attn.out_proj.weight", source.FanIn({width_, width_}, width_));
    if (has_bias_) out_projection_.bias = AddParameter("self_attn.out_proj.bias", source.Constant({width_}, 0));
  }

  Projection AddProjection(ParameterSource& source, const std::string& name, int64_t in, int64_t out) {
    Projection projection;
    projection.weight = AddParameter(name + ".weight", source.FanIn({out, in}, in));
    if (has_bias_) projection.bias = AddParameter(name + ".bias", source.FanIn({out}, in));
    return projection;
  }

  Normalisation AddNorm(ParameterSource& source, const std::string& name, double eps) {
    Normalisation norm{AddParameter(name + ".weight", source.Constant({width_}, 1)), {}, eps};
    if (has_bias_) norm.bias = AddParameter(name + ".bias", source.Constant({width_}, 0));
    return norm;
  }

  at::Tensor Drop(const LayerContext& context, const at::Tensor& x, Place place) const {
    return Dropout(x, dropout_, context, index_, place);
  }

  at::Tensor Attend(const LayerContext& context, const at::Tensor& x) const {
    const int64_t samples = x.size(0), length = x.size(1);
    // [N, L, 3E] -> three of [N, heads, L, E/heads].
    const auto parts =
        in_projection_(x).view({samples, length, 3, heads_, width_ / heads_}).permute({2, 0, 3, 1, 4}).unbind(0);
    const at::Tensor mixed = MixValues(context, parts[0], parts[1], parts[2]);
    return Drop(context, out_projection_(mixed.transpose(1, 2).reshape(x.sizes())), kAttentionOutput);
  }

  // Softmax(q k^T / sqrt(E/heads)) v. The fused operator draws its dropout from the global generator, so with dropout
  // the weights are formed here.
  at::Tensor MixValues(const LayerContext& context, const at::Tensor& q, const at::Tensor& k,
                       const at::Tensor& v) const {
    if (q.is_meta()) return at::empty_like(q);  // LibTorch has the meta kernel in Python only.
    if (!context.training || dropout_ == 0) {
      const at::Tensor mixed = at::scaled_dot_product_attention(q, k, v);
      KeepGradientLayout(mixed);
      return mixed;
    }
    const double scale = 1 / std::sqrt(static_cast<double>(q.size(-1)));
    const at::Tensor weights = at::softmax(at::matmul(q * scale, k.transpose(-2, -1)), -1);
    return at::matmul(Drop(context, weights, kAttentionWeights), v);
  }

  at::Tensor FeedForward(const LayerContext& context, const at::Tensor& x) const {
    const at::Tensor hidden = Drop(context, Activate(linear1_(x)), kHidden);
    return Drop(context, linear2_(hidden), kFeedForwardOutput);
  }

  at::Tensor Activate(const at::Tensor& x) const { return gelu_ ? at::gelu(x) : at::relu(x); }

  const int index_;
  const int64_t width_;
  const int64_t heads_;
  const double dropout_;
  const bool gelu_;
  const bool norm_first_;
  const bool has_bias_;
  Projection in_projection_, out_projection_, linear1_, linear2_;
  Normalisation norm1_, norm2_;
};

}  // namespace

std::unique_ptr<Layer> MakeTransformerEncoderLayer(const v1::TransformerEncoderLayer& spec,
                                                   const LayerOptions& options) {
  return std::make_unique<TransformerEncoderLayer>(spec, options);
}

}  // namespace gpipe::worker
