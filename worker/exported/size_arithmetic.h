#ifndef GPIPE_WORKER_EXPORTED_SIZE_ARITHMETIC_H_
#define GPIPE_WORKER_EXPORTED_SIZE_ARITHMETIC_H_

#include <memory>

#include "absl/status/statusor.h"
#include "common/exported/program.h"
#include "worker/exported/frame.h"

namespace gpipe::worker {

// Python's own operators on numbers, which sizes are computed with: `_operator.mul`, `torch.sym_max`, `math.floor`.
// Integers divide and take remainders as Python's do: towards minus infinity. Null for another kind of target.
// UNIMPLEMENTED: a target of this kind that is not known.
absl::StatusOr<std::unique_ptr<Instruction>> MakeSizeArithmetic(const exported::Node& node, Slots& slots);

}  // namespace gpipe::worker

#endif  // GPIPE_WORKER_EXPORTED_SIZE_ARITHMETIC_H_
