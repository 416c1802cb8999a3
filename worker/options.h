#ifndef GPIPE_WORKER_OPTIONS_H_
#define GPIPE_WORKER_OPTIONS_H_

#include <cstdint>
#include <optional>
#include <string>

#include "common/log_output.h"
#include "common/net/tls_options.h"
#include "common/safetensors/shard_names.h"

namespace gpipe::worker {

struct Options {
  std::string orchestrator = "127.0.0.1:7070";
  TlsOptions tls;
  std::string name;
  std::string device = "cpu";  // `cpu` or `cuda:N`.
  int threads = 0;             // 0: all cores.
  std::string data_address;
  std::string work_dir;       // Empty: a private temporary folder.
  std::string artifacts_dir;  // Empty: the orchestrator is on another machine.
  int64_t max_shard_bytes = safetensors::kMaxShardBytes;
  std::string shared_root = "/";
  std::string trace_dir;    // Empty: no traces.
  std::string http_listen;  // Empty: no HTTP.
  int leave_within = 240;   // Seconds that a job has to be saved in when this worker is told to leave.
  bool insecure = false;    // HTTP in plain text on an address that other machines can reach.
  std::string log_level = "info";
  LogOutput log;
};

// Reads the command line and fills in defaults that depend on the machine and on each other. When there is nothing to
// run (--help, --version, or a wrong flag, which is told on stderr), returns the exit code instead.
struct ParsedOptions {
  Options options;
  std::optional<int> exit_code;
};
ParsedOptions ParseOptions(int argc, char** argv);

// 127.0.0.1 when the orchestrator's address is on loopback, else this machine's host name.
std::string DefaultDataAddress(const std::string& orchestrator);

}  // namespace gpipe::worker

#endif  // GPIPE_WORKER_OPTIONS_H_
