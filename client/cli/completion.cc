#include "client/cli/completion.h"

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"

namespace gpipe::client {
namespace {

// Finds the command under the cursor by walking the words before it, then offers what may follow.
constexpr char kHead[] = R"(_gpipe() {
  local current=${COMP_WORDS[COMP_CWORD]} path= word words files= jobs= i
  for ((i = 1; i < COMP_CWORD; i++)); do
    word=${COMP_WORDS[i]}
    case "${path:+$path }$word" in
)";
constexpr char kMiddle[] = R"(      path=${path:+$path }$word ;;
    esac
  done
  case "$path" in
)";
constexpr char kTail[] = R"sh(  esac
  [ -z "$jobs" ] || words+=" $("${COMP_WORDS[0]}" --timeout 2 job list --limit 100 2>/dev/null | awk 'NR > 1 { print $1 }')"
  COMPREPLY=($(compgen -W "$words" -- "$current"))
  [ -z "$files" ] || COMPREPLY+=($(compgen -f -- "$current"))
}
complete -o filenames -F _gpipe gpipe
)sh";

}  // namespace

std::string BashCompletion(const std::vector<CommandWords>& commands) {
  std::vector<std::string> paths;
  for (const CommandWords& command : commands) {
    if (!command.path.empty()) paths.push_back(absl::StrCat("\"", command.path, "\""));
  }
  std::string script = absl::StrCat(kHead, "    ", absl::StrJoin(paths, "|"), ")\n", kMiddle);
  for (const CommandWords& command : commands) {
    absl::StrAppend(&script, "    \"", command.path, "\") words=\"", absl::StrJoin(command.words, " "), "\"",
                    command.takes_file ? " files=1" : "", command.takes_job ? " jobs=1" : "", " ;;\n");
  }
  return absl::StrCat(script, kTail);
}

std::string ZshCompletion(const std::vector<CommandWords>& commands) {
  return absl::StrCat("#compdef gpipe\nautoload -U +X compinit && compinit\n",
                      "autoload -U +X bashcompinit && bashcompinit\n", BashCompletion(commands));
}

}  // namespace gpipe::client
