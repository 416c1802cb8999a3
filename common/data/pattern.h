#ifndef GPIPE_COMMON_DATA_PATTERN_H_
#define GPIPE_COMMON_DATA_PATTERN_H_

#include <string>
#include <string_view>
#include <vector>

#include "absl/status/statusor.h"

namespace gpipe::data {

// What marks a path in a spec as one that every worker sees.
inline constexpr std::string_view kSharedPrefix = "shared:";

bool IsShared(std::string_view path);
// The path behind the prefix. REQUIRES: IsShared(path).
std::string SharedPath(std::string_view path);

// Whether the path has `*`, `?` or `[`.
bool IsPattern(std::string_view path);

// The files that a path names when `prefix` stands in front of it, as the path would name them: itself, or, of a
// pattern that is not itself a file, those that match, sorted byte by byte. `*` and `?` match within one folder, and no
// hidden file. NOT_FOUND: no file matches.
absl::StatusOr<std::vector<std::string>> Expand(const std::string& prefix, const std::string& path);

}  // namespace gpipe::data

#endif  // GPIPE_COMMON_DATA_PATTERN_H_
