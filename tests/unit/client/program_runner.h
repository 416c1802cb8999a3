#ifndef GPIPE_TESTS_UNIT_CLIENT_PROGRAM_RUNNER_H_
#define GPIPE_TESTS_UNIT_CLIENT_PROGRAM_RUNNER_H_

#include <sys/wait.h>

#include <cstdio>
#include <string>

#include "tests/unit/paths.h"

namespace gpipe::client {

struct ProgramResult {
  int exit_code = -1;
  std::string output;  // stdout and stderr.
};

// Runs the real `gpipe` through a shell with these arguments. Nothing of the environment names an orchestrator.
inline ProgramResult RunGpipe(const std::string& arguments, const std::string& environment = "") {
  const std::string command = "env -u GPIPE_ORCHESTRATOR NO_COLOR=1 " + environment + " " +
                              (BinFolder() / "gpipe").string() + " " + arguments + " 2>&1 </dev/null";
  ProgramResult result;
  std::FILE* pipe = popen(command.c_str(), "r");
  char buffer[4096];
  for (size_t count; (count = std::fread(buffer, 1, sizeof(buffer), pipe)) > 0;) result.output.append(buffer, count);
  const int status = pclose(pipe);
  result.exit_code = WIFEXITED(status) ? WEXITSTATUS(status) : -1;
  return result;
}

}  // namespace gpipe::client

#endif  // GPIPE_TESTS_UNIT_CLIENT_PROGRAM_RUNNER_H_
