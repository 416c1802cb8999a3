#include "common/json_object.h"

#include <set>
#include <string>
#include <vector>

#include "absl/strings/str_cat.h"

namespace gpipe {

absl::StatusOr<nlohmann::json> ParseJsonObject(std::string_view text, int max_depth) {
  using nlohmann::json;
  bool too_deep = false;
  std::string duplicate;
  std::vector<std::set<std::string>> keys;
  const auto watch = [&](int depth, json::parse_event_t event, json& parsed) {
    too_deep = too_deep || depth > max_depth;
    if (event == json::parse_event_t::object_start) keys.emplace_back();
    if (event == json::parse_event_t::object_end) keys.pop_back();
    if (event == json::parse_event_t::key && !keys.back().insert(parsed.get<std::string>()).second) {
      duplicate = parsed.get<std::string>();
    }
    return true;
  };
  json parsed = json::parse(text.begin(), text.end(), watch, /*allow_exceptions=*/false);
  if (too_deep) return absl::InvalidArgumentError("is nested too deeply");
  if (!duplicate.empty()) return absl::InvalidArgumentError(absl::StrCat("has '", duplicate, "' twice"));
  if (parsed.is_discarded() || !parsed.is_object()) return absl::InvalidArgumentError("is not a JSON object");
  return parsed;
}

}  // namespace gpipe
