#ifndef GPIPE_COMMON_STRING_VIEW_H_
#define GPIPE_COMMON_STRING_VIEW_H_

#include <string_view>

#include "absl/strings/string_view.h"

namespace gpipe {

// Debian builds abseil for C++14, where absl::string_view is a class of its own that does not convert to and from
// std::string_view by itself. Ours are std; these are for calls of absl's functions (StrCat, SimpleAtoi) and for its
// results (Status::message).
inline absl::string_view AbslView(std::string_view text) { return {text.data(), text.size()}; }
inline std::string_view StdView(absl::string_view text) { return {text.data(), text.size()}; }

}  // namespace gpipe

#endif  // GPIPE_COMMON_STRING_VIEW_H_
