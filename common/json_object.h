#ifndef GPIPE_COMMON_JSON_OBJECT_H_
#define GPIPE_COMMON_JSON_OBJECT_H_

#include <string_view>

#include "absl/status/statusor.h"
#include "nlohmann/json.hpp"

namespace gpipe {

// A JSON value from outside, in time linear in its text. Nesting is bounded, so that hostile text cannot exhaust the
// stack; a key that stands twice in one object, which the JSON library would silently resolve, is refused.
// INVALID_ARGUMENT reads as the end of a sentence: `is nested too deeply`.
absl::StatusOr<nlohmann::json> ParseJson(std::string_view text, int max_depth);

// The same, and it is an object.
absl::StatusOr<nlohmann::json> ParseJsonObject(std::string_view text, int max_depth);

}  // namespace gpipe

#endif  // GPIPE_COMMON_JSON_OBJECT_H_
