#include "worker/model/precision.h"

namespace gpipe::worker {
namespace {

c10::ScalarType ComputeType(v1::Precision precision) {
  if (precision == v1::PRECISION_BF16) return c10::ScalarType::BFloat16;
  return precision == v1::PRECISION_FP16 ? c10::ScalarType::Half : c10::ScalarType::Undefined;
}

}  // namespace

Precision Precision::Of(v1::Precision precision, bool layer_list) {
  return {.compute = ComputeType(precision), .files_hold_masters = layer_list};
}

Precision Precision::Of(const v1::JobSpec& spec) {
  return Of(spec.train().precision(), /*layer_list=*/!spec.model().has_exported());
}

}  // namespace gpipe::worker
