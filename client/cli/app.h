#ifndef GPIPE_CLIENT_CLI_APP_H_
#define GPIPE_CLIENT_CLI_APP_H_

namespace gpipe::client {

// The program `gpipe`: reads the command line, runs the command, returns what to exit with (client/cli/exit_code.h).
int Main(int argc, char** argv);

}  // namespace gpipe::client

#endif  // GPIPE_CLIENT_CLI_APP_H_
