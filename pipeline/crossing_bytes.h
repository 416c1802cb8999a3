#ifndef GPIPE_PIPELINE_CROSSING_BYTES_H_
#define GPIPE_PIPELINE_CROSSING_BYTES_H_

#include <cstddef>
#include <cstdint>
#include <vector>

#include "pipeline/partitioner.h"

namespace gpipe::pipeline {

// Bytes that cross the borders of a run of layers [begin, end), for every begin with the same end.
class CrossingBytes {
 public:
  // Keeps a reference to the values.
  CrossingBytes(const std::vector<LayerValue>& values, size_t layers);

  // Looks at the runs that end before layer `end`, in time linear in the layers and the values.
  // REQUIRES: `end` is larger than in the call before.
  void MoveTo(size_t end);

  // Made in the run and read after it.
  int64_t Out(size_t begin) const { return out_[begin]; }
  // Made before the run and read in it.
  int64_t In(size_t begin) const { return in_[begin]; }
  // Of those, the ones whose gradient goes back.
  int64_t Gradients(size_t begin) const { return gradients_[begin]; }

 private:
  const std::vector<LayerValue>& values_;
  std::vector<size_t> readers_before_;  // By value: how many of its readers stand before `end`.
  std::vector<int64_t> out_, in_, gradients_;
};

}  // namespace gpipe::pipeline

#endif  // GPIPE_PIPELINE_CROSSING_BYTES_H_
