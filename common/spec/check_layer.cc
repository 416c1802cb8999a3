#include <algorithm>
#include <initializer_list>
#include <limits>
#include <string>

#include "absl/strings/str_cat.h"
#include "common/spec/checks.h"

namespace gpipe::spec {
namespace {

using Sizes = google::protobuf::RepeatedField<int64_t>;

constexpr double kInfinity = std::numeric_limits<double>::infinity();

// The checks of one layer; paths are built from the layer's own.
class LayerChecks {
 public:
  LayerChecks(const std::string& path, FieldErrors& errors) : path_(path), errors_(errors) {}

  void Check(const v1::Linear& layer) {
    CheckPositive(layer.in_features(), At("in_features"), errors_);
    CheckPositive(layer.out_features(), At("out_features"), errors_);
  }

  void Check(const v1::Conv2d& layer) {
    bool good = CheckPositive(layer.in_channels(), At("in_channels"), errors_);
    good = CheckPositive(layer.out_channels(), At("out_channels"), errors_) && good;
    CheckSizes(layer.kernel_size(), "kernel_size", 1, /*required=*/true);
    CheckSizes(layer.stride(), "stride", 1);
    CheckSizes(layer.padding(), "padding", 0);
    CheckSizes(layer.dilation(), "dilation", 1);
    if (!layer.has_groups() || !CheckPositive(layer.groups(), At("groups"), errors_) || !good) return;
    if (layer.in_channels() % layer.groups() != 0 || layer.out_channels() % layer.groups() != 0) {
      errors_.Add(At("groups"), absl::StrCat("must divide in_channels (", layer.in_channels(), ") and out_channels (",
                                             layer.out_channels(), ")"));
    }
  }

  void Check(const v1::Embedding& layer) {
    const bool good = CheckPositive(layer.num_embeddings(), At("num_embeddings"), errors_);
    CheckPositive(layer.embedding_dim(), At("embedding_dim"), errors_);
    const int64_t index = layer.padding_idx(), rows = layer.num_embeddings();
    if (good && layer.has_padding_idx() && (index < -rows || index >= rows)) {
      errors_.Add(At("padding_idx"), absl::StrCat("must be a row of the table, not ", index, " of ", rows));
    }
  }

  void Check(const v1::LayerNorm& layer) {
    if (layer.normalized_shape().empty()) errors_.Add(At("normalized_shape"), "is required");
    for (int i = 0; i < layer.normalized_shape_size(); ++i) {
      CheckPositive(layer.normalized_shape(i), ElementPath(At("normalized_shape"), i), errors_);
    }
    CheckEps(layer.has_eps(), layer.eps(), "eps");
  }

  void Check(const v1::BatchNorm& layer) {
    CheckPositive(layer.num_features(), At("num_features"), errors_);
    CheckEps(layer.has_eps(), layer.eps(), "eps");
    if (layer.has_momentum() && layer.momentum() != -1) {
      CheckRange(layer.momentum(), 0, 1, /*closed=*/true, At("momentum"), errors_);
    }
  }

  void Check(const v1::Dropout& layer) {
    if (layer.has_p()) CheckRange(layer.p(), 0, 1, /*closed=*/true, At("p"), errors_);
  }

  void Check(const v1::Gelu& layer) { CheckWord(layer.approximate(), "approximate", {"none", "tanh"}); }

  void Check(const v1::Softmax& layer) { CheckNotBatch(layer.has_dim(), layer.dim(), "dim"); }

  void Check(const v1::MaxPool2d& layer) {
    CheckPool(layer);
    CheckSizes(layer.dilation(), "dilation", 1);
  }

  void Check(const v1::AvgPool2d& layer) { CheckPool(layer); }

  void Check(const v1::Flatten& layer) {
    CheckNotBatch(layer.has_start_dim(), layer.start_dim(), "start_dim");
    CheckNotBatch(layer.has_end_dim(), layer.end_dim(), "end_dim");
  }

  void Check(const v1::TransformerEncoderLayer& layer) {
    const bool good =
        CheckPositive(layer.d_model(), At("d_model"), errors_) && CheckPositive(layer.nhead(), At("nhead"), errors_);
    if (good && layer.d_model() % layer.nhead() != 0) {
      errors_.Add(At("nhead"), absl::StrCat("must divide d_model (", layer.d_model(), ")"));
    }
    if (layer.has_dim_feedforward()) CheckPositive(layer.dim_feedforward(), At("dim_feedforward"), errors_);
    if (layer.has_dropout()) CheckRange(layer.dropout(), 0, 1, /*closed=*/true, At("dropout"), errors_);
    CheckWord(layer.activation(), "activation", {"relu", "gelu"});
    CheckEps(layer.has_layer_norm_eps(), layer.layer_norm_eps(), "layer_norm_eps");
  }

  void Check(const v1::Stash& layer) { CheckSkipName(layer.name()); }

  void CheckPop(const v1::Pop& layer, bool concatenates) {
    CheckSkipName(layer.name());
    if (!concatenates && layer.has_dim()) errors_.Add(At("dim"), "belongs to pop_cat only");
    CheckNotBatch(layer.has_dim(), layer.dim(), "dim");
  }

 private:
  std::string At(const char* field) const { return absl::StrCat(path_, ".", field); }

  void CheckSizes(const Sizes& sizes, const char* field, int64_t least, bool required = false) {
    if (sizes.empty() && required) errors_.Add(At(field), "is required");
    if (sizes.size() > 2) errors_.Add(At(field), "must be one number, or two (height, width)");
    for (const int64_t size : sizes) {
      if (size < least) errors_.Add(At(field), absl::StrCat("must be at least ", least, ", not ", size));
    }
  }

  template <typename Pool>
  void CheckPool(const Pool& layer) {
    CheckSizes(layer.kernel_size(), "kernel_size", 1, /*required=*/true);
    CheckSizes(layer.stride(), "stride", 1);
    CheckSizes(layer.padding(), "padding", 0);
    if (layer.kernel_size().empty()) return;
    // Of height and width, whichever is written as one number for both.
    for (int i = 0; i < std::max(layer.padding_size(), layer.kernel_size_size()); ++i) {
      if (SizeAt(layer.padding(), i) <= SizeAt(layer.kernel_size(), i) / 2) continue;
      return errors_.Add(At("padding"), "must be at most half of kernel_size");
    }
  }

  // The i-th size, or the last one, which then stands for all; 0 when there is none.
  static int64_t SizeAt(const Sizes& sizes, int i) { return sizes.empty() ? 0 : sizes[std::min(i, sizes.size() - 1)]; }

  void CheckEps(bool given, double value, const char* field) {
    if (given) CheckRange(value, 0, kInfinity, /*closed=*/false, At(field), errors_);
  }

  // Dimension 0 is the batch, which the pipeline cuts.
  void CheckNotBatch(bool given, int64_t dim, const char* field) {
    if (given && dim == 0) errors_.Add(At(field), "must not be 0, which is the batch");
  }

  void CheckWord(const std::string& word, const char* field, std::initializer_list<const char*> allowed) {
    if (word.empty()) return;
    std::string list;
    for (const char* choice : allowed) {
      if (word == choice) return;
      absl::StrAppend(&list, list.empty() ? "" : " or ", choice);
    }
    errors_.Add(At(field), absl::StrCat("must be ", list, ", not '", word, "'"));
  }

  void CheckSkipName(const std::string& name) {
    if (name.empty()) errors_.Add(At("name"), "is required");
  }

  const std::string& path_;
  FieldErrors& errors_;
};

}  // namespace

void CheckLayer(const v1::Layer& layer, const std::string& path, FieldErrors& errors) {
  LayerChecks checks(path, errors);
  switch (layer.kind_case()) {
    case v1::Layer::kLinear:
      return checks.Check(layer.linear());
    case v1::Layer::kConv2D:
      return checks.Check(layer.conv_2d());
    case v1::Layer::kEmbedding:
      return checks.Check(layer.embedding());
    case v1::Layer::kLayerNorm:
      return checks.Check(layer.layer_norm());
    case v1::Layer::kBatchNorm1D:
      return checks.Check(layer.batch_norm_1d());
    case v1::Layer::kBatchNorm2D:
      return checks.Check(layer.batch_norm_2d());
    case v1::Layer::kDropout:
      return checks.Check(layer.dropout());
    case v1::Layer::kGelu:
      return checks.Check(layer.gelu());
    case v1::Layer::kSoftmax:
      return checks.Check(layer.softmax());
    case v1::Layer::kMaxPool2D:
      return checks.Check(layer.max_pool_2d());
    case v1::Layer::kAvgPool2D:
      return checks.Check(layer.avg_pool_2d());
    case v1::Layer::kFlatten:
      return checks.Check(layer.flatten());
    case v1::Layer::kTransformerEncoderLayer:
      return checks.Check(layer.transformer_encoder_layer());
    case v1::Layer::kStash:
      return checks.Check(layer.stash());
    case v1::Layer::kPopAdd:
      return checks.CheckPop(layer.pop_add(), /*concatenates=*/false);
    case v1::Layer::kPopCat:
      return checks.CheckPop(layer.pop_cat(), /*concatenates=*/true);
    case v1::Layer::kRelu:
    case v1::Layer::kTanh:
    case v1::Layer::kSigmoid:
      return;
    case v1::Layer::KIND_NOT_SET:
      errors.Add(path, "names no layer");
  }
}

}  // namespace gpipe::spec
