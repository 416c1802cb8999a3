#ifndef GPIPE_WORKER_EXPORTED_OPERATOR_CALL_H_
#define GPIPE_WORKER_EXPORTED_OPERATOR_CALL_H_

#include <ATen/core/dispatch/Dispatcher.h>

#include <memory>
#include <optional>
#include <string>

#include "absl/status/statusor.h"
#include "common/exported/program.h"
#include "common/exported/size_expression.h"
#include "worker/exported/deferred_statistics.h"
#include "worker/exported/frame.h"
#include "worker/exported/result_slot.h"

namespace gpipe::worker {

// What a graph's instructions are made with.
struct CompileOptions {
  c10::Device device = c10::kCPU;
  // In training batch norm leaves its running statistics alone and puts its micro-batch's there; null: it does not.
  DeferredStatistics* deferred = nullptr;
  // The program is the model in evaluation: nothing is turned off.
  bool as_it_is = false;
  exported::Symbols symbols = {};  // Any sizes of the program's inputs (AnySizes).
};

// A call of one of LibTorch's operators through the dispatcher, so that autograd sees it.
//
// The program is an export in training mode, in which dropout drops and batch norm counts, unless it is `as_it_is`. In
// evaluation the operator's own argument for that is turned off; when a forward is recomputed, batch norm's running
// statistics stay. A random operator is seeded by (job seed, step, micro-batch, its position in the program): repeated
// exactly by recomputing, and the same for every cut.
//
// Results have the layouts of `layouts`, where there is one.
//
// NOT_FOUND: no such operator here. INVALID_ARGUMENT or UNIMPLEMENTED: its arguments do not fit the schema.
absl::StatusOr<std::unique_ptr<Instruction>> MakeOperatorCall(const exported::Node& node, uint64_t position,
                                                              Slots& slots, const Layouts& layouts,
                                                              const CompileOptions& options);

// The operator of `torch.ops.aten.linear.default`; nullopt for another kind of target.
// NOT_FOUND: it has the form of an operator's, and there is none.
absl::StatusOr<std::optional<c10::OperatorHandle>> FindOperator(const exported::Node& node);

// Whether the node may write to what it reads. Regions are not looked into: they may.
bool MayWrite(const exported::Node& node);

// Whether the operator draws random numbers in evaluation, too.
bool IsRandomInEvaluation(const c10::OperatorHandle& handle);

}  // namespace gpipe::worker

#endif  // GPIPE_WORKER_EXPORTED_OPERATOR_CALL_H_
