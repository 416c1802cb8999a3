// Layers without parameters, and the table of all kinds.
#include <ATen/ATen.h>

#include <functional>

#include "worker/model/checks.h"
#include "worker/model/dropout.h"
#include "worker/model/layers.h"
#include "worker/model/random.h"

namespace gpipe::worker {
namespace {

// Dropouts within one layer.
constexpr uint64_t kMaxPlaces = 16;

// A layer that is one function of its input and nothing else.
class FunctionLayer : public UnaryLayer {
 public:
  using Function = std::function<at::Tensor(const at::Tensor&)>;
  explicit FunctionLayer(Function function) : function_(std::move(function)) {}

 protected:
  at::Tensor Apply(const LayerContext& context, const at::Tensor& x) override { return function_(x); }

 private:
  Function function_;
};

std::unique_ptr<Layer> MakeFunction(FunctionLayer::Function function) {
  return std::make_unique<FunctionLayer>(std::move(function));
}

class DropoutLayer : public UnaryLayer {
 public:
  DropoutLayer(double p, int index) : p_(p), index_(index) {}

 protected:
  at::Tensor Apply(const LayerContext& context, const at::Tensor& x) override {
    CheckFloating(x);
    return Dropout(x, p_, context, index_, 0);
  }

 private:
  const double p_;
  const int index_;
};

// Both results are new values, not the input again: then a value's gradient is always a sum of two, which has one
// result in floating point, however many stashes follow each other and wherever the model is cut.
class Stash : public Layer {
 public:
  std::vector<at::Tensor> Forward(const LayerContext& context, std::vector<at::Tensor> inputs) override {
    return {at::alias(inputs[0]), at::alias(inputs[0])};
  }
};

class PopAdd : public Layer {
 public:
  std::vector<at::Tensor> Forward(const LayerContext& context, std::vector<at::Tensor> inputs) override {
    TORCH_CHECK_VALUE(inputs[0].sizes() == inputs[1].sizes(), "expects the shape of what was stashed, ",
                      ShapeText(inputs[1]), ", gets ", ShapeText(inputs[0]));
    return {inputs[0] + inputs[1]};
  }
};

class PopCat : public Layer {
 public:
  explicit PopCat(int64_t dim) : dim_(dim) {}

  std::vector<at::Tensor> Forward(const LayerContext& context, std::vector<at::Tensor> inputs) override {
    const int64_t dim = ResolveDim(inputs[0], dim_);
    std::vector<int64_t> expected = inputs[1].sizes().vec();
    if (inputs[1].dim() == inputs[0].dim()) expected[dim] = inputs[0].size(dim);
    TORCH_CHECK_VALUE(inputs[0].sizes() == at::IntArrayRef(expected), "expects the shape of what was stashed, ",
                      ShapeText(inputs[1]), ", in all dimensions but ", dim, ", gets ", ShapeText(inputs[0]));
    return {at::cat(inputs, dim)};
  }

 private:
  const int64_t dim_;
};

}  // namespace

at::Tensor Dropout(const at::Tensor& x, double p, const LayerContext& context, int layer, int place) {
  if (!context.training || p == 0 || x.is_meta()) return x;
  if (p >= 1) return x * 0;
  const at::Tensor mask = at::empty_like(x);
  const uint64_t drawn_at = static_cast<uint64_t>(layer) * kMaxPlaces + static_cast<uint64_t>(place);
  DrawSeeded(x.device(), context, drawn_at, [&](const at::Generator& generator) { mask.bernoulli_(1 - p, generator); });
  return x * mask.div_(1 - p);
}

std::unique_ptr<Layer> MakeDropout(const v1::Dropout& spec, const LayerOptions& options) {
  return std::make_unique<DropoutLayer>(spec.p(), options.index);
}

std::unique_ptr<Layer> MakeRelu() {
  return MakeFunction([](const at::Tensor& x) { return at::relu(x); });
}

std::unique_ptr<Layer> MakeGelu(const v1::Gelu& spec) {
  return MakeFunction([approximate = spec.approximate()](const at::Tensor& x) {
    CheckFloating(x);
    return at::gelu(x, approximate);
  });
}

std::unique_ptr<Layer> MakeTanh() {
  return MakeFunction([](const at::Tensor& x) { return at::tanh(x); });
}

std::unique_ptr<Layer> MakeSigmoid() {
  return MakeFunction([](const at::Tensor& x) { return at::sigmoid(x); });
}

std::unique_ptr<Layer> MakeSoftmax(const v1::Softmax& spec) {
  return MakeFunction([dim = spec.dim()](const at::Tensor& x) {
    CheckFloating(x);
    return at::softmax(x, ResolveDim(x, dim));
  });
}

std::unique_ptr<Layer> MakeMaxPool2d(const v1::MaxPool2d& spec) {
  return MakeFunction([kernel = Pair(spec.kernel_size()), stride = Pair(spec.stride()), padding = Pair(spec.padding()),
                       dilation = Pair(spec.dilation()), ceil = spec.ceil_mode()](const at::Tensor& x) {
    CheckRank(x, 4, "[N, C, H, W]");
    return at::max_pool2d(x, kernel, stride, padding, dilation, ceil);
  });
}

std::unique_ptr<Layer> MakeAvgPool2d(const v1::AvgPool2d& spec) {
  return MakeFunction([kernel = Pair(spec.kernel_size()), stride = Pair(spec.stride()), padding = Pair(spec.padding()),
                       ceil = spec.ceil_mode(), count_pad = spec.count_include_pad()](const at::Tensor& x) {
    CheckRank(x, 4, "[N, C, H, W]");
    return at::avg_pool2d(x, kernel, stride, padding, ceil, count_pad);
  });
}

std::unique_ptr<Layer> MakeFlatten(const v1::Flatten& spec) {
  return MakeFunction([start = spec.start_dim(), end = spec.end_dim()](const at::Tensor& x) {
    return x.flatten(ResolveDim(x, start), ResolveDim(x, end));
  });
}

std::unique_ptr<Layer> MakeStash() { return std::make_unique<Stash>(); }

std::unique_ptr<Layer> MakePopAdd() { return std::make_unique<PopAdd>(); }

std::unique_ptr<Layer> MakePopCat(const v1::Pop& spec) { return std::make_unique<PopCat>(spec.dim()); }

std::unique_ptr<Layer> MakeLayer(const v1::Layer& layer, const LayerOptions& options) {
  switch (layer.kind_case()) {
    case v1::Layer::kLinear:
      return MakeLinear(layer.linear(), options);
    case v1::Layer::kConv2D:
      return MakeConv2d(layer.conv_2d(), options);
    case v1::Layer::kEmbedding:
      return MakeEmbedding(layer.embedding(), options);
    case v1::Layer::kLayerNorm:
      return MakeLayerNorm(layer.layer_norm(), options);
    case v1::Layer::kBatchNorm1D:
      return MakeBatchNorm(layer.batch_norm_1d(), 1, options);
    case v1::Layer::kBatchNorm2D:
      return MakeBatchNorm(layer.batch_norm_2d(), 2, options);
    case v1::Layer::kDropout:
      return MakeDropout(layer.dropout(), options);
    case v1::Layer::kRelu:
      return MakeRelu();
    case v1::Layer::kGelu:
      return MakeGelu(layer.gelu());
    case v1::Layer::kTanh:
      return MakeTanh();
    case v1::Layer::kSigmoid:
      return MakeSigmoid();
    case v1::Layer::kSoftmax:
      return MakeSoftmax(layer.softmax());
    case v1::Layer::kMaxPool2D:
      return MakeMaxPool2d(layer.max_pool_2d());
    case v1::Layer::kAvgPool2D:
      return MakeAvgPool2d(layer.avg_pool_2d());
    case v1::Layer::kFlatten:
      return MakeFlatten(layer.flatten());
    case v1::Layer::kTransformerEncoderLayer:
      return MakeTransformerEncoderLayer(layer.transformer_encoder_layer(), options);
    case v1::Layer::kStash:
      return MakeStash();
    case v1::Layer::kPopAdd:
      return MakePopAdd();
    case v1::Layer::kPopCat:
      return MakePopCat(layer.pop_cat());
    case v1::Layer::KIND_NOT_SET:
      break;
  }
  TORCH_CHECK_VALUE(false, "a layer without a kind");
}

}  // namespace gpipe::worker
