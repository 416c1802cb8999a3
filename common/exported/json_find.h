#ifndef GPIPE_COMMON_EXPORTED_JSON_FIND_H_
#define GPIPE_COMMON_EXPORTED_JSON_FIND_H_

#include "nlohmann/json.hpp"

namespace gpipe::exported {

// What is at a JSON pointer (`/schema_version/major`), or null.
inline const nlohmann::json& Find(const nlohmann::json& value, const char* pointer) {
  static const nlohmann::json kNull;
  const nlohmann::json::json_pointer path(pointer);
  return value.contains(path) ? value.at(path) : kNull;
}

}  // namespace gpipe::exported

#endif  // GPIPE_COMMON_EXPORTED_JSON_FIND_H_
