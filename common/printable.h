#ifndef GPIPE_COMMON_PRINTABLE_H_
#define GPIPE_COMMON_PRINTABLE_H_

#include <string>
#include <string_view>

#include "google/protobuf/message.h"

namespace gpipe {

// Text from outside as it may be shown in a terminal and written to a log: control characters, which could colour it,
// move its cursor or ring its bell, are written out (`\x1b`), and what is not UTF-8 too. Lines stay lines.
std::string Printable(std::string_view text);

// The same for every text in a message; bytes stay as they are.
void MakePrintable(google::protobuf::Message& message);

}  // namespace gpipe

#endif  // GPIPE_COMMON_PRINTABLE_H_
