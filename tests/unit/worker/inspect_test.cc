#include "worker/model/inspect.h"

#include <ATen/ATen.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "common/field_error.h"
#include "common/grpc_status.h"
#include "common/plan/shape.h"
#include "tests/unit/worker/local_pipeline.h"

namespace gpipe::worker {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;

v1::Inspect Request(const std::string& layers, const std::vector<int64_t>& input_shape,
                    v1::DataType dtype = v1::DATA_TYPE_FLOAT32) {
  v1::Inspect request;
  *request.mutable_model() = ParseSpec("name: test\nmodel: {sequential: [" + layers + "]}").model();
  v1::ModelValue& input = *request.add_inputs();
  *input.mutable_shape() = BatchShape(input_shape);
  input.set_dtype(dtype);
  return request;
}

void SetTarget(v1::Inspect& request, const std::vector<int64_t>& shape, v1::DataType dtype) {
  request.mutable_target_shape()->Assign(shape.begin(), shape.end());
  request.set_target_dtype(dtype);
}

FieldViolation OnlyViolation(const v1::Inspected& result) {
  const absl::Status status = FromProto(result.status());
  EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument) << status;
  EXPECT_EQ(result.layers_size(), 0);
  const auto violations = FieldViolations(status);
  EXPECT_EQ(violations.size(), 1u);
  return violations.empty() ? FieldViolation{} : violations.front();
}

const char kConvolutions[] =
    "{conv_2d: {in_channels: 3, out_channels: 8, kernel_size: 3, stride: 2}}, {batch_norm_2d: {num_features: 8}}, "
    "{stash: {name: x}}, {relu: {}}, {pop_cat: {name: x}}, {max_pool_2d: {kernel_size: 2}}, {flatten: {}}, "
    "{linear: {in_features: 144, out_features: 10}}";

TEST(InspectTest, InMixedPrecisionValuesAreHalvesAndFilesHoldFloats) {
  v1::Inspect request = Request(kConvolutions, {3, 14, 14});
  request.set_precision(v1::PRECISION_BF16);
  const v1::Inspected result = InspectModel(request, at::kCPU);
  ASSERT_EQ(result.status().code(), 0) << result.status().message();
  for (const v1::LayerInfo& layer : result.layers()) {
    for (const v1::ModelValue& value : layer.makes()) EXPECT_EQ(value.dtype(), v1::DATA_TYPE_BFLOAT16) << value.name();
    for (const v1::ModelTensor& tensor : layer.tensors()) {
      if (tensor.name() == "1.num_batches_tracked") continue;
      EXPECT_EQ(tensor.dtype(), v1::DATA_TYPE_FLOAT32) << tensor.name();
    }
  }
  EXPECT_EQ(result.layers(7).outputs(0).dtype(), v1::DATA_TYPE_BFLOAT16);
  EXPECT_EQ(result.layers(0).parameter_bytes(), 2 * (8 * 3 * 9 + 8));
  EXPECT_EQ(result.layers(1).parameter_bytes(), 4 * 16) << "batch norm stays as it is";
}

TEST(InspectTest, FindsShapesAndParameters) {
  v1::Inspect request = Request(kConvolutions, {3, 14, 14});
  request.set_id(7);
  request.add_freeze("0.");
  const v1::Inspected result = InspectModel(request, at::kCPU);
  ASSERT_EQ(result.status().code(), 0) << result.status().message();
  EXPECT_EQ(result.id(), 7);
  ASSERT_EQ(result.layers_size(), 8);
  EXPECT_EQ(result.layers(0).kind(), "conv_2d");
  EXPECT_THAT(SampleShape(result.layers(0).makes(0).shape()), ElementsAre(8, 6, 6));
  EXPECT_EQ(result.layers(0).parameter_count(), 8 * 3 * 9 + 8);
  EXPECT_EQ(result.layers(0).parameter_bytes(), 4 * (8 * 3 * 9 + 8));
  EXPECT_EQ(result.layers(0).trainable_count(), 0);
  EXPECT_EQ(result.layers(1).parameter_count(), 16) << "buffers are not parameters";
  EXPECT_EQ(result.layers(1).trainable_count(), 16);
  ASSERT_EQ(result.layers(1).tensors_size(), 5) << "they are in a file of weights";
  EXPECT_EQ(result.layers(1).tensors(0).name(), "1.weight");
  EXPECT_THAT(result.layers(4).reads(), ElementsAre("layer.3", "skip.x"));
  ASSERT_EQ(result.layers(2).makes_size(), 2);
  EXPECT_EQ(result.layers(2).makes(1).name(), "skip.x");
  EXPECT_FALSE(result.layers(0).makes(0).requires_grad()) << "layer 0 is frozen";
  EXPECT_TRUE(result.layers(1).makes(0).requires_grad());
  EXPECT_THAT(result.layers(1).tensors(0).shape(), ElementsAre(8));
  EXPECT_EQ(result.layers(1).tensors(4).dtype(), v1::DATA_TYPE_INT64) << "num_batches_tracked";
  EXPECT_THAT(SampleShape(result.layers(4).makes(0).shape()), ElementsAre(16, 6, 6));
  EXPECT_THAT(SampleShape(result.layers(6).makes(0).shape()), ElementsAre(144));
  EXPECT_THAT(SampleShape(result.layers(7).outputs(0).shape()), ElementsAre(10));
  EXPECT_EQ(result.layers(7).outputs(0).name(), "output");
  EXPECT_EQ(result.layers(7).outputs(0).dtype(), v1::DATA_TYPE_FLOAT32);
  EXPECT_EQ(result.layers(7).forward_nanos(), 0) << "not asked for";
}

TEST(InspectTest, CountsWhatBatchNormTakesTheStatisticsOf) {
  v1::Inspect request = Request(kConvolutions, {3, 14, 14});
  EXPECT_EQ(InspectModel(request, at::kCPU).layers(1).values_per_channel_size(), 0) << "inference takes none";
  *request.mutable_loss() = ParseSpec("name: test\ntrain: {loss: {mse: {}}}").train().loss();
  const v1::Inspected result = InspectModel(request, at::kCPU);
  ASSERT_EQ(result.layers(1).values_per_channel_size(), 1);
  EXPECT_EQ(result.layers(1).values_per_channel(0).per_sample(), 36);
  EXPECT_EQ(result.layers(2).values_per_channel_size(), 0);
}

TEST(InspectTest, NamesTheLayerThatDoesNotFit) {
  const auto violation = OnlyViolation(InspectModel(
      Request("{linear: {in_features: 16, out_features: 32}}, {relu: {}}, {linear: {in_features: 64, out_features: 2}}",
              {16}),
      at::kCPU));
  EXPECT_EQ(violation.field, "model.sequential[2].linear");
  EXPECT_EQ(violation.description, "expects 64 features, gets [*, 32]");
}

TEST(InspectTest, NeedsNoMemoryForTheModel) {
  const v1::Inspected result =
      InspectModel(Request("{linear: {in_features: 1000000, out_features: 1000000}}", {1000000}), at::kCPU);
  ASSERT_EQ(result.status().code(), 0) << result.status().message();
  EXPECT_EQ(result.layers(0).parameter_count(), 1000001000000);
}

TEST(InspectTest, RefusesSizesBeyondReason) {
  const int64_t huge = int64_t{1} << 62;
  EXPECT_EQ(OnlyViolation(
                InspectModel(Request("{linear: {in_features: 4611686018427387904, out_features: 16}}", {4}), at::kCPU))
                .field,
            "model.sequential[0].linear");
  EXPECT_NE(InspectModel(Request("{relu: {}}", {huge, huge}), at::kCPU).status().code(), 0);
  EXPECT_NE(InspectModel(Request("{relu: {}}", {-1}), at::kCPU).status().code(), 0);
  EXPECT_NE(InspectModel(Request("{relu: {}}", {1}, v1::DATA_TYPE_UNSPECIFIED), at::kCPU).status().code(), 0);
}

struct LossMisfit {
  std::string loss;
  std::vector<int64_t> target_shape;
  v1::DataType target_dtype;
  bool fits;
};

TEST(InspectTest, ChecksTheLossAgainstTheOutput) {
  for (const LossMisfit& c : {LossMisfit{"cross_entropy: {}", {}, v1::DATA_TYPE_INT64, true},
                              {"cross_entropy: {}", {}, v1::DATA_TYPE_FLOAT32, false},
                              {"cross_entropy: {}", {4}, v1::DATA_TYPE_INT64, false},
                              {"mse: {}", {4}, v1::DATA_TYPE_FLOAT32, true},
                              {"mse: {}", {}, v1::DATA_TYPE_FLOAT32, false},
                              {"mse: {}", {4}, v1::DATA_TYPE_FLOAT64, true},
                              {"mse: {}", {4}, v1::DATA_TYPE_INT32, true},
                              {"mse: {}", {4}, v1::DATA_TYPE_COMPLEX64, false},
                              {"cross_entropy: {}", {4}, v1::DATA_TYPE_FLOAT16, true},
                              {"cross_entropy: {}", {3}, v1::DATA_TYPE_FLOAT32, false},
                              {"cross_entropy: {}", {}, v1::DATA_TYPE_UINT8, true},
                              {"cross_entropy: {}", {}, v1::DATA_TYPE_INT32, false},
                              {"bce_with_logits: {}", {4}, v1::DATA_TYPE_INT64, false},
                              {"bce_with_logits: {}", {4}, v1::DATA_TYPE_FLOAT32, true},
                              {"bce_with_logits: {}", {1}, v1::DATA_TYPE_FLOAT32, false}}) {
    v1::Inspect request = Request("{linear: {in_features: 3, out_features: 4}}", {3});
    *request.mutable_loss() = ParseSpec("name: test\ntrain: {loss: {" + c.loss + "}}").train().loss();
    SetTarget(request, c.target_shape, c.target_dtype);
    const v1::Inspected result = InspectModel(request, at::kCPU);
    if (c.fits) {
      EXPECT_EQ(result.status().code(), 0) << c.loss << result.status().message();
    } else {
      EXPECT_EQ(OnlyViolation(result).field, "train.loss") << c.loss;
    }
  }
}

TEST(InspectTest, MeasuresLayers) {
  v1::Inspect request = Request(kConvolutions, {3, 14, 14});
  *request.mutable_loss() = ParseSpec("name: test\ntrain: {loss: {cross_entropy: {}}}").train().loss();
  SetTarget(request, {}, v1::DATA_TYPE_INT64);
  request.set_profile_micro_batch(4);
  const v1::Inspected result = InspectModel(request, at::kCPU);
  ASSERT_EQ(result.status().code(), 0) << result.status().message();
  for (const v1::LayerInfo& layer : result.layers()) {
    EXPECT_GT(layer.forward_nanos(), 0) << layer.kind();
    EXPECT_GT(layer.backward_nanos(), 0) << layer.kind();
  }
}

const v1::ValueMemory* MemoryOf(const v1::LayerInfo& layer, const std::string& name) {
  for (const v1::ValueMemory& value : layer.value_memory()) {
    if (value.name() == name) return &value;
  }
  return nullptr;
}

// Convolutions and batch normalisation keep what they read, a ReLU what it makes; a stash and a flattening make no
// memory at all.
TEST(InspectTest, MeasuresWhichValuesAreKept) {
  v1::Inspect request = Request(kConvolutions, {3, 14, 14});
  *request.mutable_loss() = ParseSpec("name: test\ntrain: {loss: {cross_entropy: {}}}").train().loss();
  SetTarget(request, {}, v1::DATA_TYPE_INT64);
  request.set_profile_micro_batch(4);
  const v1::Inspected result = InspectModel(request, at::kCPU);
  ASSERT_EQ(result.layers_size(), 8) << result.status().message();
  const auto memory = [&](int layer, const std::string& name) {
    const v1::ValueMemory* found = MemoryOf(result.layers(layer), name);
    return found == nullptr ? v1::ValueMemory() : *found;
  };
  EXPECT_TRUE(memory(0, "input").kept());
  EXPECT_EQ(memory(0, "layer.0").bytes_per_sample(), 4 * 8 * 6 * 6);
  EXPECT_FALSE(memory(0, "layer.0").kept());
  EXPECT_TRUE(memory(1, "layer.0").kept());
  EXPECT_EQ(memory(2, "layer.2").within(), "layer.1");
  EXPECT_EQ(memory(2, "skip.x").within(), "layer.1");
  EXPECT_EQ(memory(2, "skip.x").bytes_per_sample(), 0);
  EXPECT_TRUE(memory(3, "layer.3").kept());
  EXPECT_EQ(MemoryOf(result.layers(3), "layer.2"), nullptr) << "only its result is kept";
  EXPECT_EQ(memory(6, "layer.6").within(), "layer.5");
  EXPECT_TRUE(memory(7, "layer.6").kept());
  for (const v1::LayerInfo& layer : result.layers()) {
    EXPECT_GE(layer.working_bytes_per_sample(), 0) << layer.kind();
  }
  EXPECT_GE(result.layers(0).working_bytes_per_sample(), 4 * 8 * 6 * 6) << "at least its result, which is not kept";
  EXPECT_EQ(result.layers(2).activation_bytes_per_sample(), 0);
}

TEST(InspectTest, MeasuresAnInferenceJobForwardOnly) {
  v1::Inspect request = Request("{batch_norm_1d: {num_features: 3}}", {3});
  request.set_profile_micro_batch(1);  // In training this is an error.
  const v1::Inspected result = InspectModel(request, at::kCPU);
  ASSERT_EQ(result.status().code(), 0) << result.status().message();
  EXPECT_GT(result.layers(0).forward_nanos(), 0);
  EXPECT_EQ(result.layers(0).activation_bytes_per_sample(), 0);
  EXPECT_GE(result.layers(0).working_bytes_per_sample(), 4 * 3);
  for (const v1::ValueMemory& value : result.layers(0).value_memory()) EXPECT_FALSE(value.kept()) << value.name();
}

TEST(InspectTest, SaysWhichLayerCannotBeTrainedWithThisMicroBatch) {
  v1::Inspect request = Request("{relu: {}}, {batch_norm_1d: {num_features: 3}}", {3});
  *request.mutable_loss() = ParseSpec("name: test\ntrain: {loss: {mse: {}}}").train().loss();
  request.set_profile_micro_batch(1);
  EXPECT_EQ(OnlyViolation(InspectModel(request, at::kCPU)).field, "model.sequential[1].batch_norm_1d");
}

}  // namespace
}  // namespace gpipe::worker
