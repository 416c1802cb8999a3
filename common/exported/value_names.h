#ifndef GPIPE_COMMON_EXPORTED_VALUE_NAMES_H_
#define GPIPE_COMMON_EXPORTED_VALUE_NAMES_H_

#include <string>
#include <string_view>
#include <vector>

#include "common/exported/program.h"

namespace gpipe::exported {

// Of that name; null: it is left out.
const Argument* FindArgument(const Node& node, std::string_view name);

// The values that an argument is made of.
void AppendValues(const Argument& argument, std::vector<std::string>& names);

std::vector<std::string> ValuesReadBy(const Node& node);

// Those that have a name, which is not every result.
std::vector<std::string> ValuesMadeBy(const Node& node);

}  // namespace gpipe::exported

#endif  // GPIPE_COMMON_EXPORTED_VALUE_NAMES_H_
