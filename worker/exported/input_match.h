#ifndef GPIPE_WORKER_EXPORTED_INPUT_MATCH_H_
#define GPIPE_WORKER_EXPORTED_INPUT_MATCH_H_

#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "common/exported/program.h"
#include "gpipe/v1/plan.pb.h"

namespace gpipe::worker {

// The data that a program is to take, as messages have it: sizes of one that has no samples are fixed.
struct ProgramData {
  std::vector<v1::ModelValue> inputs;
  bool in_order = false;  // They are in the model's order; else it takes those that have its inputs' names.
  std::string dataset;    // The field of a spec that has them: `train.dataset`, `infer`.

  std::string field() const { return dataset + ".inputs"; }
};

// The data for each of the program's inputs, in its order. INVALID_ARGUMENT, by field path: another number of inputs,
// names, types or sizes than the program's, samples where it has none and the other way round. Pure; any thread.
absl::StatusOr<std::vector<v1::ModelValue>> MatchInputs(const exported::Program& program, const ProgramData& data);

}  // namespace gpipe::worker

#endif  // GPIPE_WORKER_EXPORTED_INPUT_MATCH_H_
