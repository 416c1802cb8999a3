#include "worker/model/model_layers.h"

#include "absl/strings/str_cat.h"
#include "common/field_error.h"
#include "common/spec/validator.h"
#include "common/status_macros.h"
#include "worker/model/layers.h"
#include "worker/model/meta_kernels.h"
#include "worker/torch_status.h"

namespace gpipe::worker {
namespace {

std::string OutputName(int index) { return index < 0 ? "input" : absl::StrCat("layer.", index); }

std::string SkipName(const std::string& name) { return absl::StrCat("skip.", name); }

void NameValues(const v1::Layer& spec, ModelLayer& layer) {
  layer.inputs = {OutputName(layer.index - 1)};
  layer.outputs = {OutputName(layer.index)};
  if (spec.has_stash()) layer.outputs.push_back(SkipName(spec.stash().name()));
  if (spec.has_pop_add()) layer.inputs.push_back(SkipName(spec.pop_add().name()));
  if (spec.has_pop_cat()) layer.inputs.push_back(SkipName(spec.pop_cat().name()));
}

absl::StatusOr<ModelLayer> BuildLayer(const v1::JobSpec& spec, int index, const SequentialOptions& options) {
  const v1::Layer& description = spec.model().sequential(index);
  ModelLayer layer;
  layer.index = index;
  layer.kind = spec::LayerKind(description);
  layer.prefix = absl::StrCat(index, ".");
  NameValues(description, layer);
  const absl::Status made = CatchTorch([&] {
    ParameterSource parameters(spec.model().init_seed(), index, options.device);
    layer.layer = MakeLayer(description, {index, options.deferred_batch_norm, parameters});
    if (options.precision.mixed()) layer.layer->CastParameters(options.precision.compute);
    return absl::OkStatus();
  });
  if (made.ok()) return layer;
  if (!absl::IsResourceExhausted(made)) return FieldError(spec::LayerPath(spec, index), std::string(made.message()));
  return absl::ResourceExhaustedError(absl::StrCat(spec::LayerPath(spec, index), ": ", made.message()));
}

}  // namespace

absl::StatusOr<std::vector<ModelLayer>> BuildSequential(const v1::JobSpec& spec, const SequentialOptions& options) {
  if (options.device.is_meta()) RegisterMetaKernels();
  std::vector<ModelLayer> layers;
  for (int i = 0; i < options.layer_count; ++i) {
    GPIPE_ASSIGN_OR_RETURN(ModelLayer layer, BuildLayer(spec, options.first_layer + i, options));
    layers.push_back(std::move(layer));
  }
  return layers;
}

}  // namespace gpipe::worker
