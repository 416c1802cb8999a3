#ifndef GPIPE_WORKER_EXPORTED_BATCH_STATISTICS_H_
#define GPIPE_WORKER_EXPORTED_BATCH_STATISTICS_H_

#include <vector>

#include "common/exported/program.h"
#include "gpipe/v1/plan.pb.h"
#include "worker/exported/value_table.h"

namespace gpipe::worker {

// Values per channel that a node's batch normalisation takes the statistics of in training; of a region, those of all
// its nodes. None where their number is no fixed one plus a multiple of the batch.
std::vector<v1::Dimension> ValuesPerChannel(const exported::Graph& graph, const exported::Node& node,
                                            const ValueTable& values);

}  // namespace gpipe::worker

#endif  // GPIPE_WORKER_EXPORTED_BATCH_STATISTICS_H_
