#include "pipeline/placement.h"

#include "absl/strings/str_cat.h"

namespace gpipe::pipeline {

absl::Status CheckPlacement(const std::vector<int>& stage_worker, int stages) {
  if (stages < 1) return absl::InvalidArgumentError("a schedule needs at least one stage");
  if (stage_worker.size() != static_cast<size_t>(stages)) {
    return absl::InvalidArgumentError(
        absl::StrCat("stage_worker names ", stage_worker.size(), " workers for ", stages, " stages"));
  }
  int previous = -1;
  for (int stage = 0; stage < stages; ++stage) {
    const int worker = stage_worker[stage];
    const bool next = worker == previous + 1, same = stage > 0 && worker == previous;
    if (!next && !same) {
      return absl::InvalidArgumentError(
          absl::StrCat("stage_worker must ascend from 0 without gaps, but stage ", stage, " is on worker ", worker));
    }
    previous = worker;
  }
  return absl::OkStatus();
}

}  // namespace gpipe::pipeline
