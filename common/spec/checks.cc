#include "common/spec/checks.h"

#include <cmath>
#include <limits>

#include "absl/strings/str_cat.h"
#include "common/data/pattern.h"

namespace gpipe::spec {

bool CheckPositive(int64_t value, const std::string& path, FieldErrors& errors) {
  if (value > 0) return true;
  errors.Add(path, absl::StrCat("must be a positive whole number, not ", value));
  return false;
}

bool CheckNotNegative(int64_t value, const std::string& path, FieldErrors& errors) {
  if (value >= 0) return true;
  errors.Add(path, absl::StrCat("must not be negative, but is ", value));
  return false;
}

bool CheckRange(double value, double low, double high, bool closed, const std::string& path, FieldErrors& errors) {
  if (std::isfinite(value) && value >= low && (closed ? value <= high : value < high)) return true;
  if (std::isinf(high)) {
    errors.Add(path, absl::StrCat("must be a finite number of at least ", low, ", not ", value));
  } else {
    errors.Add(path, absl::StrCat("must be in [", low, ", ", high, closed ? "]" : ")", ", not ", value));
  }
  return false;
}

bool CheckFinitePositive(double value, const std::string& path, FieldErrors& errors) {
  if (std::isfinite(value) && value > 0) return true;
  errors.Add(path, absl::StrCat("must be a positive, finite number, not ", value));
  return false;
}

void CheckPaths(const google::protobuf::RepeatedPtrField<std::string>& paths, const std::string& path,
                FieldErrors& errors) {
  for (int i = 0; i < paths.size(); ++i) {
    const std::string element = paths.size() == 1 ? path : ElementPath(path, i);
    if (paths[i].empty()) errors.Add(element, "must name a file, and is empty");
    if (data::IsShared(paths[i]) && data::SharedPath(paths[i]).substr(0, 1) != "/") {
      errors.Add(element, "must go on with `/` after `shared:`: it is a path of the workers");
    }
    if (data::IsShared(paths[i]) != data::IsShared(paths[0])) {
      errors.Add(element, "must be `shared:` as the others are, or all of them not");
    }
  }
}

std::string ElementPath(const std::string& path, int index) { return absl::StrCat(path, "[", index, "]"); }

}  // namespace gpipe::spec
