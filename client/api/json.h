#ifndef GPIPE_CLIENT_API_JSON_H_
#define GPIPE_CLIENT_API_JSON_H_

#include <string>

#include "google/protobuf/message.h"

namespace gpipe::client {

enum class JsonStyle { kDocument, kLine };

// proto3 JSON of an API message under its proto field names, but for 64-bit numbers, which are numbers: indented, or on
// one line. No end of line after it.
std::string ToJson(const google::protobuf::Message& message, JsonStyle style);

}  // namespace gpipe::client

#endif  // GPIPE_CLIENT_API_JSON_H_
