#ifndef GPIPE_COMMON_PLAN_SHAPE_H_
#define GPIPE_COMMON_PLAN_SHAPE_H_

#include <cstdint>
#include <vector>

#include "gpipe/v1/plan.pb.h"

namespace gpipe {

// The shape of a value that depends on the number of samples, as messages have it.
using Shape = google::protobuf::RepeatedPtrField<v1::Dimension>;

// The batch, and behind it one sample's sizes, which do not depend on it.
Shape BatchShape(const std::vector<int64_t>& sample);

// That of a value that does not depend on the number of samples.
Shape FixedShape(const std::vector<int64_t>& sizes);

// Whether it is BatchShape of something: of most values, of all data that has samples, and of outputs that can be cut
// into samples.
bool BeginsWithBatch(const Shape& shape);

// What it is BatchShape of. REQUIRES: BeginsWithBatch.
std::vector<int64_t> SampleShape(const Shape& shape);

// The sizes for so many samples.
std::vector<int64_t> SizesFor(const Shape& shape, int64_t samples);

// The size of the dimension that counts the classes, `dim` from the end when negative; 0 when that is none, or the
// batch.
int64_t ClassesIn(const Shape& shape, int64_t dim);

// Whether a value of that type may have a gradient.
bool IsDifferentiable(v1::DataType dtype);

// Bytes of a value for so many samples.
int64_t BytesFor(const Shape& shape, v1::DataType dtype, int64_t samples);

}  // namespace gpipe

#endif  // GPIPE_COMMON_PLAN_SHAPE_H_
