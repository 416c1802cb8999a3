#ifndef GPIPE_WORKER_EXPORTED_ARGUMENT_SOURCE_H_
#define GPIPE_WORKER_EXPORTED_ARGUMENT_SOURCE_H_

#include <ATen/core/jit_type.h>
#include <c10/core/Device.h>

#include <optional>
#include <vector>

#include "absl/status/statusor.h"
#include "common/exported/program.h"
#include "worker/exported/frame.h"

namespace gpipe::worker {

// Where an operator's argument comes from: a constant of the program, a value of the frame, or a list with values in
// it; and the type that the operator wants, which the program's need not be (a number where the schema says Tensor).
class ArgumentSource {
 public:
  // `type` is the schema's. Devices become `device`. UNIMPLEMENTED or INVALID_ARGUMENT says what does not fit.
  static absl::StatusOr<ArgumentSource> Create(const exported::Argument& argument, const c10::TypePtr& type,
                                               const Slots& slots, c10::Device device);
  static ArgumentSource Constant(c10::IValue value);

  c10::IValue Get(const Frame& frame) const;

  const std::optional<c10::IValue>& constant() const { return constant_; }

 private:
  c10::TypePtr type_;
  std::optional<c10::IValue> constant_;
  std::optional<size_t> slot_;
  std::vector<ArgumentSource> elements_;
};

// torch.export's numbers as LibTorch's; nullopt for one that this build does not know.
std::optional<c10::ScalarType> ToScalarType(exported::DtypeCode code);

}  // namespace gpipe::worker

#endif  // GPIPE_WORKER_EXPORTED_ARGUMENT_SOURCE_H_
