#include "absl/strings/str_cat.h"
#include "pipeline/schedule.h"

namespace gpipe::pipeline {

absl::StatusOr<Schedule> MakeSchedule(ScheduleKind kind, const ScheduleOptions& options) {
  switch (kind) {
    case ScheduleKind::kGPipe:
      return GPipeSchedule(options);
  }
  return absl::InvalidArgumentError(absl::StrCat("there is no schedule of kind ", static_cast<int>(kind)));
}

}  // namespace gpipe::pipeline
