#ifndef GPIPE_COMMON_VERSION_H_
#define GPIPE_COMMON_VERSION_H_

#include <string_view>

namespace gpipe {

inline constexpr std::string_view kVersion = "0.2.0";

}  // namespace gpipe

#endif  // GPIPE_COMMON_VERSION_H_
