#include <pthread.h>
#include <unistd.h>

#include <csignal>
#include <cstring>
#include <string>

#include "CLI/CLI.hpp"
#include "common/descriptor_limit.h"
#include "common/log_flags.h"
#include "common/log_output.h"
#include "common/logging.h"
#include "common/malloc_setup.h"
#include "common/malloc_trimmer.h"
#include "common/net/grpc_log.h"
#include "common/net/tls_flags.h"
#include "common/string_view.h"
#include "common/version.h"
#include "orchestrator/server.h"
#include "spdlog/spdlog.h"

namespace gpipe::orchestrator {
namespace {

struct Flags {
  ServerOptions server;
  int64_t heartbeat_millis = 1000;
  int64_t lease_millis = 5000;
  double keep_days = 0;
  std::string log_level = "info";
  LogOutput log;
  int ready_fd = -1;
};

void AddFlags(CLI::App& app, Flags& flags) {
  app.add_option("--listen", flags.server.listen, "HOST:PORT to serve on; port 0 lets the kernel choose")
      ->capture_default_str();
  app.add_option("--state-dir", flags.server.state_dir, "folder of jobs and files; created if it is not there")
      ->capture_default_str();
  app.add_option("--heartbeat-millis", flags.heartbeat_millis, "how often workers say that they live")
      ->check(CLI::Range(10, 3600'000))
      ->capture_default_str();
  app.add_option("--lease-millis", flags.lease_millis, "a worker silent for so long is lost")
      ->check(CLI::Range(20, 3600'000))
      ->capture_default_str();
  app.add_option("--max-shard-bytes", flags.server.max_shard_bytes,
                 "models and checkpoints up to this size are joined into one file; larger ones stay in several")
      ->check(CLI::PositiveNumber)
      ->capture_default_str();
  app.add_option("--keep-jobs", flags.server.housekeeping.most_jobs,
                 "of jobs that are over so many of the newest are kept; older ones are deleted with their files")
      ->check(CLI::NonNegativeNumber)
      ->capture_default_str();
  app.add_option("--keep-days", flags.keep_days,
                 "delete jobs, with their files, so many days after their end; 0: never")
      ->check(CLI::NonNegativeNumber)
      ->capture_default_str();
  app.add_option("--http-listen", flags.server.http_listen,
                 "HOST:PORT of the web page, /metrics, /livez, /readyz and /statusz; not given: nowhere");
  AddLogFlags(app, flags.log);
  app.add_option("--log-level", flags.log_level, "trace | debug | info | warn | error")->capture_default_str();
  app.add_option("--ready-fd", flags.ready_fd, "write HOST:PORT to this file descriptor when serving, and close it");
  app.add_flag("--insecure", flags.server.insecure, "allow an address that other machines can reach, in plain text");
  AddTlsFlags(app, flags.server.tls);
  app.add_option("--tokens-file", flags.server.tokens_file,
                 "lines `role name token` of those who call without a certificate; read again when it changes")
      ->type_name("FILE");
  app.add_flag("--reflection,!--no-reflection", flags.server.reflection,
               "answer what services and messages there are, for grpcurl and clients without generated code")
      ->default_str("true");
  app.set_version_flag("--version", std::string(kVersion));
  app.footer("Exit codes: 0 stopped by SIGTERM or SIGINT, 1 failed, 2 usage.");
}

int Fail(const absl::Status& status) {
  spdlog::error("{}", StdView(status.message()));
  return absl::IsInvalidArgument(status) ? 2 : 1;
}

void SayReady(int fd, const std::string& address) {
  if (fd < 0) return;
  const std::string line = address + "\n";
  if (write(fd, line.data(), line.size()) < 0) spdlog::warn("nobody reads --ready-fd {}", fd);
  close(fd);
}

// Signals are blocked in every thread, and taken here one at a time.
int Serve(Flags& flags, const sigset_t& signals) {
  bool broken = false;  // Set before the signal that ends the wait.
  flags.server.on_broken = [&broken](const absl::Status&) {
    broken = true;
    kill(getpid(), SIGTERM);
  };
  const MallocTrimmer trimmer;
  auto server = Server::Start(flags.server);
  if (!server.ok()) return Fail(server.status());
  spdlog::info("serving on {}, state in {}", (*server)->address(), flags.server.state_dir.string());
  if (!(*server)->http_address().empty()) spdlog::info("serving HTTP on {}", (*server)->http_address());
  SayReady(flags.ready_fd, (*server)->address());
  int signal = 0;
  sigwait(&signals, &signal);
  spdlog::info("{}: shutting down", strsignal(signal));
  (*server)->Shutdown();
  return broken ? 1 : 0;
}

int Main(int argc, char** argv) {
  KeepFreedPieces();
  ShareArenas();
  RaiseDescriptorLimit();
  sigset_t signals;
  sigemptyset(&signals);
  sigaddset(&signals, SIGTERM);
  sigaddset(&signals, SIGINT);
  pthread_sigmask(SIG_BLOCK, &signals, nullptr);
  signal(SIGPIPE, SIG_IGN);

  CLI::App app("Keeps jobs, plans them, places them on workers and drives their clock cycles.", "gpipe-orchestrator");
  Flags flags;
  AddFlags(app, flags);
  try {
    app.parse(argc, argv);
  } catch (const CLI::ParseError& error) {
    return app.exit(error) == 0 ? 0 : 2;
  }
  if (absl::Status logging = InitLogging("gpipe-orchestrator", flags.log_level); !logging.ok()) return Fail(logging);
  LogGrpc();
  if (absl::Status logging = SetLogOutput(flags.log); !logging.ok()) return Fail(logging);
  if (flags.lease_millis < 2 * flags.heartbeat_millis) {
    return Fail(absl::InvalidArgumentError("--lease-millis must be at least twice --heartbeat-millis"));
  }
  flags.server.cluster = {.heartbeat = absl::Milliseconds(flags.heartbeat_millis),
                          .lease = absl::Milliseconds(flags.lease_millis)};
  if (flags.keep_days > 0) flags.server.housekeeping.keep = absl::Hours(24 * flags.keep_days);
  return Serve(flags, signals);
}

}  // namespace
}  // namespace gpipe::orchestrator

int main(int argc, char** argv) { return gpipe::orchestrator::Main(argc, argv); }
