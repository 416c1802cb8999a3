#ifndef GPIPE_WORKER_EXPORTED_REGION_CALL_H_
#define GPIPE_WORKER_EXPORTED_REGION_CALL_H_

#include <memory>

#include "absl/status/statusor.h"
#include "common/exported/program.h"
#include "worker/exported/frame.h"
#include "worker/exported/operator_call.h"

namespace gpipe::worker {

// A call of a graph within the graph: torch.no_grad(), torch.autocast(), torch.cond(). Null for another kind of target.
// UNIMPLEMENTED: a region that is none of these.
// Results have the layouts of `layouts`, where there is one.
absl::StatusOr<std::unique_ptr<Instruction>> MakeRegionCall(const exported::Node& node, uint64_t position, Slots& slots,
                                                            const Layouts& layouts, const CompileOptions& options);

}  // namespace gpipe::worker

#endif  // GPIPE_WORKER_EXPORTED_REGION_CALL_H_
