#ifndef GPIPE_COMMON_EXPORTED_GRAPH_PARSER_H_
#define GPIPE_COMMON_EXPORTED_GRAPH_PARSER_H_

#include "absl/status/statusor.h"
#include "common/exported/program.h"
#include "nlohmann/json.hpp"

namespace gpipe::exported {

// The graph of a program or of a region in it. INVALID_ARGUMENT names the node.
absl::StatusOr<Graph> ParseGraph(const nlohmann::json& json);

// A one-key object: `{"as_int": 3}`.
absl::StatusOr<Argument> ParseArgument(const nlohmann::json& json);

}  // namespace gpipe::exported

#endif  // GPIPE_COMMON_EXPORTED_GRAPH_PARSER_H_
