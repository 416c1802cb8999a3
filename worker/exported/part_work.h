#ifndef GPIPE_WORKER_EXPORTED_PART_WORK_H_
#define GPIPE_WORKER_EXPORTED_PART_WORK_H_

#include <cstdint>

#include "worker/exported/graph_layer.h"
#include "worker/exported/value_table.h"
#include "worker/model/device_speed.h"

namespace gpipe::worker {

// What one forward of these nodes has to do for so many samples, from the sizes of their values: products are counted
// as PyTorch's FlopCounterMode does, and each value that is read or made is moved once. Values of unknown size count
// for nothing.
LayerWork WorkOf(const exported::Program& program, const ValueTable& values, const GraphLayer::Part& part,
                 int64_t samples);

}  // namespace gpipe::worker

#endif  // GPIPE_WORKER_EXPORTED_PART_WORK_H_
