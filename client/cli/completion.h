#ifndef GPIPE_CLIENT_CLI_COMPLETION_H_
#define GPIPE_CLIENT_CLI_COMPLETION_H_

#include <string>
#include <vector>

namespace gpipe::client {

// A command and what may follow it, however deep.
struct CommandWords {
  std::string path;                // `job submit`; empty for the program itself.
  std::vector<std::string> words;  // Commands below it, and its options.
  bool takes_file = false;         // A file may follow too.
  bool takes_job = false;          // The id of a job may follow too, of which the newest are offered.
};

// Scripts to be sourced: `source <(gpipe completion bash)`.
std::string BashCompletion(const std::vector<CommandWords>& commands);
std::string ZshCompletion(const std::vector<CommandWords>& commands);

}  // namespace gpipe::client

#endif  // GPIPE_CLIENT_CLI_COMPLETION_H_
