#ifndef GPIPE_COMMON_SPEC_NEAREST_NAME_H_
#define GPIPE_COMMON_SPEC_NEAREST_NAME_H_

#include <string>
#include <string_view>
#include <vector>

namespace gpipe::spec {

// The one of `names` that a user most likely meant, by edit distance; empty when none is near.
std::string NearestName(std::string_view name, const std::vector<std::string>& names);

}  // namespace gpipe::spec

#endif  // GPIPE_COMMON_SPEC_NEAREST_NAME_H_
