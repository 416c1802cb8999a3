#include "client/cli/data_commands.h"

#include <unistd.h>

#include <cerrno>
#include <cstdlib>
#include <cstring>
#include <filesystem>

#include "absl/strings/str_cat.h"
#include "common/status_macros.h"

namespace gpipe::client {
namespace {

namespace fs = std::filesystem;

// Beside the installed program, or in the source tree that it was built in.
absl::StatusOr<fs::path> FindScript() {
  std::error_code error;
  const fs::path folder = fs::read_symlink("/proc/self/exe", error).parent_path();
  for (const char* place : {"../share/gpipe/python/gpipe/data.py", "../../client/python/gpipe/data.py"}) {
    const fs::path script = (folder / place).lexically_normal();
    if (fs::exists(script, error)) return script;
  }
  return absl::NotFoundError("the Python package gpipe is not installed with this program");
}

}  // namespace

absl::StatusOr<ExitCode> DataConvert(const std::vector<std::string>& arguments) {
  GPIPE_ASSIGN_OR_RETURN(const fs::path script, FindScript());
  const char* chosen = std::getenv("GPIPE_PYTHON");
  std::vector<std::string> words = {chosen == nullptr ? "python3" : chosen, script.string(), "convert"};
  words.insert(words.end(), arguments.begin(), arguments.end());
  std::vector<char*> argv;
  for (std::string& word : words) argv.push_back(word.data());
  argv.push_back(nullptr);
  setenv("GPIPE_DATA_PROGRAM", "gpipe data", /*overwrite=*/1);
  execvp(argv[0], argv.data());
  return absl::NotFoundError(
      absl::StrCat("cannot start ", words[0], ": ", std::strerror(errno),
                   "; GPIPE_PYTHON is the interpreter with numpy, and pyarrow for CSV and Parquet"));
}

}  // namespace gpipe::client
