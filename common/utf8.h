#ifndef GPIPE_COMMON_UTF8_H_
#define GPIPE_COMMON_UTF8_H_

#include <string_view>

namespace gpipe {

// The longest beginning of `text` that is whole, valid UTF-8 characters. Messages can carry nothing else: protobuf
// refuses to parse a string that is not UTF-8.
std::string_view Utf8Prefix(std::string_view text);

}  // namespace gpipe

#endif  // GPIPE_COMMON_UTF8_H_
