#ifndef GPIPE_CLIENT_CLI_DATA_COMMANDS_H_
#define GPIPE_CLIENT_CLI_DATA_COMMANDS_H_

#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "client/cli/exit_code.h"

namespace gpipe::client {

// `gpipe data convert ...`: becomes `gpipe.data` of the Python package, which reads CSV and Parquet with the libraries
// that Python has for them; nothing of that sort is linked here. The interpreter is GPIPE_PYTHON, or python3. Returns
// only when that cannot be started: NOT_FOUND says what is missing.
absl::StatusOr<ExitCode> DataConvert(const std::vector<std::string>& arguments);

}  // namespace gpipe::client

#endif  // GPIPE_CLIENT_CLI_DATA_COMMANDS_H_
