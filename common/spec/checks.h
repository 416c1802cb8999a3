#ifndef GPIPE_COMMON_SPEC_CHECKS_H_
#define GPIPE_COMMON_SPEC_CHECKS_H_

#include <cstdint>
#include <string>

#include "common/field_error.h"
#include "google/protobuf/repeated_field.h"
#include "gpipe/v1/job_spec.pb.h"

namespace gpipe::spec {

// The parts of Validate. Each adds what is wrong under its field path and looks at nothing else.

void CheckModel(const v1::Model& model, FieldErrors& errors);
// Arguments of one layer; `path` is its LayerPath.
void CheckLayer(const v1::Layer& layer, const std::string& path, FieldErrors& errors);
// Stash and pop pairs of the whole model.
void CheckSkips(const v1::Model& model, FieldErrors& errors);
void CheckPipeline(const v1::JobSpec& spec, FieldErrors& errors);
void CheckTrain(const v1::JobSpec& spec, FieldErrors& errors);
void CheckInfer(const v1::JobSpec& spec, FieldErrors& errors);
// The inputs without samples of the data set at `path`, and of `infer`.
void CheckUnbatched(const v1::Dataset& dataset, const v1::JobSpec& spec, const std::string& path, FieldErrors& errors);
void CheckUnbatched(const v1::Infer& infer, const v1::JobSpec& spec, FieldErrors& errors);
// That evaluation has no samples of the same inputs as training. REQUIRES: both have a data set.
void CheckSameUnbatched(const v1::Train& train, FieldErrors& errors);

// Single values. Each returns whether the value is good.

bool CheckPositive(int64_t value, const std::string& path, FieldErrors& errors);
bool CheckNotNegative(int64_t value, const std::string& path, FieldErrors& errors);
// Finite and in [low, high]; `high` itself only when `closed`.
bool CheckRange(double value, double low, double high, bool closed, const std::string& path, FieldErrors& errors);
bool CheckFinitePositive(double value, const std::string& path, FieldErrors& errors);

// Names of files: none is empty, and all are `shared:` or none is.
void CheckPaths(const google::protobuf::RepeatedPtrField<std::string>& paths, const std::string& path,
                FieldErrors& errors);

// One path for elements and lists: `path[i]`.
std::string ElementPath(const std::string& path, int index);

}  // namespace gpipe::spec

#endif  // GPIPE_COMMON_SPEC_CHECKS_H_
