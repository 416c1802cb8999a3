#ifndef GPIPE_WORKER_EXPORTED_RESULT_LAYOUT_H_
#define GPIPE_WORKER_EXPORTED_RESULT_LAYOUT_H_

#include <map>
#include <string>
#include <utility>
#include <vector>

#include "common/exported/program.h"
#include "common/exported/size_expression.h"
#include "worker/exported/operator_call.h"

namespace gpipe::worker {

// The layouts that results of the nodes must have, by value: those that they had where the program was exported.
//
// An operator may lay out its result in another way on another device; attention does. torch.export has left out what
// was not needed with the layout that it saw, such as a contiguous() before a view(), which fails with any other.
// So there are layouts here for what is viewed, itself or through other views, and is made by one of the nodes.
// `values` tells of the graph's tensors, in sizes of `symbols`.
Layouts ResultLayouts(const std::vector<std::pair<uint64_t, const exported::Node*>>& nodes,
                      const std::map<std::string, exported::TensorMeta>& values, const exported::Symbols& symbols);

}  // namespace gpipe::worker

#endif  // GPIPE_WORKER_EXPORTED_RESULT_LAYOUT_H_
