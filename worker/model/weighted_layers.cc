// Layers whose work is one operator with weights: linear, conv_2d, embedding, layer_norm.
#include <ATen/ATen.h>

#include "worker/model/accumulating.h"
#include "worker/model/checks.h"
#include "worker/model/layers.h"

namespace gpipe::worker {
namespace {

class Linear : public UnaryLayer {
 public:
  Linear(const v1::Linear& spec, ParameterSource& source)
      : weight_(AddParameter("weight", source.FanIn({spec.out_features(), spec.in_features()}, spec.in_features()))) {
    if (spec.bias()) bias_ = AddParameter("bias", source.FanIn({spec.out_features()}, spec.in_features()));
  }

 protected:
  at::Tensor Apply(const LayerContext& context, const at::Tensor& x) override {
    CheckType(x, weight_.scalar_type());
    CheckSize(x, -1, weight_.size(1), "features");
    return AccumulatingLinear(x, weight_, bias_);
  }

 private:
  at::Tensor weight_;
  at::Tensor bias_;
};

class Conv2d : public UnaryLayer {
 public:
  Conv2d(const v1::Conv2d& spec, ParameterSource& source)
      : stride_(Pair(spec.stride())),
        padding_(Pair(spec.padding())),
        dilation_(Pair(spec.dilation())),
        groups_(spec.groups()) {
    TORCH_CHECK_VALUE(groups_ > 0 && spec.in_channels() % groups_ == 0 && spec.out_channels() % groups_ == 0,
                      "in_channels and out_channels must be multiples of groups (", groups_, ")");
    const auto kernel = Pair(spec.kernel_size());
    const int64_t per_group = spec.in_channels() / groups_;
    const int64_t fan_in = per_group * kernel[0] * kernel[1];
    weight_ = AddParameter("weight", source.FanIn({spec.out_channels(), per_group, kernel[0], kernel[1]}, fan_in));
    if (spec.bias()) bias_ = AddParameter("bias", source.FanIn({spec.out_channels()}, fan_in));
  }

 protected:
  at::Tensor Apply(const LayerContext& context, const at::Tensor& x) override {
    CheckType(x, weight_.scalar_type());
    CheckRank(x, 4, "[N, C, H, W]");
    CheckSize(x, 1, weight_.size(1) * groups_, "channels");
    if (x.is_meta()) return at::empty(OutputShape(x), x.options());
    return at::conv2d(x, weight_, bias_, stride_, padding_, dilation_, groups_);
  }

 private:
  // LibTorch has the meta kernel of this operator in Python only.
  std::vector<int64_t> OutputShape(const at::Tensor& x) const {
    std::vector<int64_t> shape = {x.size(0), weight_.size(0)};
    for (int i = 0; i < 2; ++i) {
      const int64_t reach = dilation_[i] * (weight_.size(2 + i) - 1) + 1;
      const int64_t room = x.size(2 + i) + 2 * padding_[i] - reach;
      TORCH_CHECK_VALUE(room >= 0, "expects at least ", reach - 2 * padding_[i], i == 0 ? " rows" : " columns",
                        " for its kernel, gets ", ShapeText(x));
      shape.push_back(room / stride_[i] + 1);
    }
    return shape;
  }

  std::array<int64_t, 2> stride_, padding_, dilation_;
  int64_t groups_;
  at::Tensor weight_;
  at::Tensor bias_;
};

class Embedding : public UnaryLayer {
 public:
  Embedding(const v1::Embedding& spec, ParameterSource& source)
      : padding_(Padding(spec)),
        weight_(AddParameter("weight", source.Normal({spec.num_embeddings(), spec.embedding_dim()}))) {
    if (padding_ >= 0) weight_[padding_].zero_();
  }

 protected:
  at::Tensor Apply(const LayerContext& context, const at::Tensor& x) override {
    TORCH_CHECK_VALUE(x.scalar_type() == at::kLong || x.scalar_type() == at::kInt, "expects int64 indices, gets ",
                      x.scalar_type(), ' ', ShapeText(x));
    return at::embedding(weight_, x, padding_);
  }

 private:
  // -1 is none. Negative rows count from the end, as in torch.
  static int64_t Padding(const v1::Embedding& spec) {
    if (!spec.has_padding_idx()) return -1;
    const int64_t row = spec.padding_idx() + (spec.padding_idx() < 0 ? spec.num_embeddings() : 0);
    TORCH_CHECK_VALUE(row >= 0 && row < spec.num_embeddings(), "padding_idx ", spec.padding_idx(), " is not one of ",
                      spec.num_embeddings(), " rows");
    return row;
  }

  int64_t padding_;
  at::Tensor weight_;
};

class LayerNorm : public UnaryLayer {
 public:
  LayerNorm(const v1::LayerNorm& spec, ParameterSource& source)
      : shape_(spec.normalized_shape().begin(), spec.normalized_shape().end()), eps_(spec.eps()) {
    if (!spec.elementwise_affine()) return;
    weight_ = AddParameter("weight", source.Constant(shape_, 1));
    if (spec.bias()) bias_ = AddParameter("bias", source.Constant(shape_, 0));
  }

 protected:
  at::Tensor Apply(const LayerContext& context, const at::Tensor& x) override {
    CheckFloating(x);
    const int64_t first = x.dim() - static_cast<int64_t>(shape_.size());
    TORCH_CHECK_VALUE(first >= 1 && x.sizes().slice(first) == at::IntArrayRef(shape_), "expects the last dimensions ",
                      at::IntArrayRef(shape_), ", gets ", ShapeText(x));
    return at::layer_norm(x, shape_, weight_, bias_, eps_);
  }

 private:
  std::vector<int64_t> shape_;
  double eps_;
  at::Tensor weight_;
  at::Tensor bias_;
};

}  // namespace

std::unique_ptr<Layer> MakeLinear(const v1::Linear& spec, const LayerOptions& options) {
  return std::make_unique<Linear>(spec, options.parameters);
}

std::unique_ptr<Layer> MakeConv2d(const v1::Conv2d& spec, const LayerOptions& options) {
  return std::make_unique<Conv2d>(spec, options.parameters);
}

std::unique_ptr<Layer> MakeEmbedding(const v1::Embedding& spec, const LayerOptions& options) {
  return std::make_unique<Embedding>(spec, options.parameters);
}

std::unique_ptr<Layer> MakeLayerNorm(const v1::LayerNorm& spec, const LayerOptions& options) {
  return std::make_unique<LayerNorm>(spec, options.parameters);
}

}  // namespace gpipe::worker
