#ifndef GPIPE_ORCHESTRATOR_PLANNING_LAYER_COSTS_H_
#define GPIPE_ORCHESTRATOR_PLANNING_LAYER_COSTS_H_

#include <cstdint>
#include <span>
#include <string>

#include "gpipe/v1/job_spec.pb.h"
#include "gpipe/v1/plan.pb.h"

namespace gpipe::orchestrator {

// Weights, gradients and optimizer state of a layer, with masters in mixed precision.
int64_t StateBytes(const v1::JobSpec& spec, const v1::LayerInfo& layer);

// What StateBytes counts more than once of these layers: tensors that several of them use, of which a worker has one.
int64_t RepeatedStateBytes(const v1::JobSpec& spec, std::span<const v1::LayerInfo> layers);

// Of a value that a layer makes, or an input of the model.
int64_t ValueBytes(const v1::ModelValue& value, int64_t samples);

// The data behind an input of the model: the one of that name, or the only one there is; null when it cannot be told.
const v1::ModelValue* DataOf(const std::string& input, const google::protobuf::RepeatedPtrField<v1::ModelValue>& data);

// Whether any of so many micro-batches is computed again before its backward.
bool Recomputes(const v1::JobSpec& spec, int64_t micro_batches);

}  // namespace gpipe::orchestrator

#endif  // GPIPE_ORCHESTRATOR_PLANNING_LAYER_COSTS_H_
