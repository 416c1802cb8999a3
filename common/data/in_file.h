#ifndef GPIPE_COMMON_DATA_IN_FILE_H_
#define GPIPE_COMMON_DATA_IN_FILE_H_

#include <string>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"

namespace gpipe::data {

// The same status about a data file, by its name in the spec.
inline absl::Status InFile(const std::string& name, const absl::Status& status) {
  return absl::Status(status.code(), absl::StrCat("'", name, "' cannot be used: ", status.message()));
}

}  // namespace gpipe::data

#endif  // GPIPE_COMMON_DATA_IN_FILE_H_
