#ifndef GPIPE_WORKER_MODEL_LAYERS_H_
#define GPIPE_WORKER_MODEL_LAYERS_H_

#include <memory>

#include "gpipe/v1/job_spec.pb.h"
#include "worker/model/layer.h"
#include "worker/model/parameter_source.h"

namespace gpipe::worker {

// What a layer is made of besides its own message. Messages have their defaults written out (spec::WithDefaults).
struct LayerOptions {
  int index = 0;  // Its position in the whole model.
  bool deferred_batch_norm = false;
  ParameterSource& parameters;
};

// Makes the layer of any kind with its initial parameters. Throws c10::ValueError for arguments that make no sense.
std::unique_ptr<Layer> MakeLayer(const v1::Layer& layer, const LayerOptions& options);

// The kinds, by file. Each is torch.nn's module of that name.
std::unique_ptr<Layer> MakeLinear(const v1::Linear& spec, const LayerOptions& options);
std::unique_ptr<Layer> MakeConv2d(const v1::Conv2d& spec, const LayerOptions& options);
std::unique_ptr<Layer> MakeEmbedding(const v1::Embedding& spec, const LayerOptions& options);
std::unique_ptr<Layer> MakeLayerNorm(const v1::LayerNorm& spec, const LayerOptions& options);

std::unique_ptr<Layer> MakeBatchNorm(const v1::BatchNorm& spec, int spatial_dims, const LayerOptions& options);

std::unique_ptr<Layer> MakeTransformerEncoderLayer(const v1::TransformerEncoderLayer& spec,
                                                   const LayerOptions& options);

std::unique_ptr<Layer> MakeMaxPool2d(const v1::MaxPool2d& spec);
std::unique_ptr<Layer> MakeAvgPool2d(const v1::AvgPool2d& spec);
std::unique_ptr<Layer> MakeFlatten(const v1::Flatten& spec);

std::unique_ptr<Layer> MakeDropout(const v1::Dropout& spec, const LayerOptions& options);
std::unique_ptr<Layer> MakeRelu();
std::unique_ptr<Layer> MakeGelu(const v1::Gelu& spec);
std::unique_ptr<Layer> MakeTanh();
std::unique_ptr<Layer> MakeSigmoid();
std::unique_ptr<Layer> MakeSoftmax(const v1::Softmax& spec);

// Reads one value, makes two: what passes on, and what is kept under the name.
std::unique_ptr<Layer> MakeStash();
// Read what passes and what was kept.
std::unique_ptr<Layer> MakePopAdd();
std::unique_ptr<Layer> MakePopCat(const v1::Pop& spec);

}  // namespace gpipe::worker

#endif  // GPIPE_WORKER_MODEL_LAYERS_H_
