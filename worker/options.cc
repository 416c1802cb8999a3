#include "worker/options.h"

#include <unistd.h>

#include <algorithm>
#include <array>
#include <iostream>
#include <thread>

#include "CLI/CLI.hpp"
#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "common/address.h"
#include "common/file.h"
#include "common/listen_address.h"
#include "common/log_flags.h"
#include "common/net/certificate.h"
#include "common/net/tls_flags.h"
#include "common/version.h"
#include "worker/comm/reach.h"

namespace gpipe::worker {
namespace {

constexpr int kUsage = 2;

constexpr const char* kFooter =
    "Exit codes: 0 left when told to (SIGTERM, SIGINT); 1 the orchestrator refused this worker, or a second signal;\n"
    "2 wrong usage.";

std::string HostName() {
  std::array<char, 256> name = {};
  return gethostname(name.data(), name.size() - 1) == 0 ? name.data() : "localhost";
}

// The name in the worker's certificate, of which its own must be made; empty: there is none.
std::string CertifiedName(const TlsOptions& tls) {
  const absl::StatusOr<std::string> pem = ReadFile(tls.cert);
  const absl::StatusOr<Certificate> certificate = pem.ok() ? ParseCertificate(*pem) : pem.status();
  return certificate.ok() ? certificate->name : "";
}

// `host-cuda0-1234`; behind the certificate's name, where there is one.
std::string DefaultName(const Options& options) {
  std::string device = options.device;
  std::erase(device, ':');
  const std::string certified = CertifiedName(options.tls);
  return absl::StrCat(certified, certified.empty() ? "" : "-", HostName(), "-", device, "-", getpid());
}

std::string CheckDevice(const std::string& device) {
  if (device == "cpu" || device == "cuda") return "";
  const bool numbered = absl::StartsWith(device, "cuda:") && device.size() > 5 && device.size() < 9 &&
                        std::all_of(device.begin() + 5, device.end(), [](char c) { return c >= '0' && c <= '9'; });
  return numbered ? "" : absl::StrCat("'", device, "' is neither cpu nor cuda:N");
}

// Who it is, and what it computes on.
void AddIdentityFlags(CLI::App& app, Options& options) {
  app.add_option("--orchestrator", options.orchestrator, "Address of the orchestrator")
      ->type_name("HOST:PORT")
      ->envname("GPIPE_ORCHESTRATOR")
      ->check(AddressProblem)
      ->capture_default_str();
  AddTlsFlags(app, options.tls);
  app.add_option("--name", options.name,
                 "Name among the workers. With a certificate it is that one's name (CN), or begins with it and a "
                 "dash. Default: host, device and process id, behind the certificate's name and a dash")
      ->type_name("NAME");
  app.add_option("--device", options.device, "Device to compute on: cpu or cuda:N")
      ->check(CLI::Validator(CheckDevice, ""))
      ->capture_default_str();
  app.add_option("--threads", options.threads, "CPU threads for one operation; 0 is all cores")
      ->check(CLI::NonNegativeNumber)
      ->capture_default_str();
  app.add_option("--data-address", options.data_address,
                 "Where other workers reach this one's tensors. Default: 127.0.0.1 when the orchestrator is on "
                 "loopback, otherwise the host name")
      ->type_name("HOST");
}

// What it reads and writes.
void AddFolderFlags(CLI::App& app, Options& options) {
  app.add_option("--work-dir", options.work_dir,
                 "Folder for fetched files and checkpoints on their way. Default: a temporary folder, removed at exit")
      ->type_name("DIR");
  app.add_option(
         "--artifacts-dir", options.artifacts_dir,
         "Folder of the orchestrator's artifacts, if it is on this machine: files are taken from there instead of "
         "being sent, and left there where that folder is this user's")
      ->type_name("DIR");
  app.add_option("--max-shard-bytes", options.max_shard_bytes,
                 "Largest file of a model or a checkpoint, but for one of a single tensor that is larger")
      ->type_name("BYTES")
      ->check(CLI::PositiveNumber)
      ->capture_default_str();
  app.add_option(
         "--shared-root", options.shared_root,
         "Folder below which the `shared:` paths of jobs are looked for, where it is not /; jobs see no files of "
         "this machine outside of it")
      ->type_name("DIR")
      ->capture_default_str();
  app.add_option("--trace-dir", options.trace_dir,
                 "Trace two rounds of each attempt into this folder, for Perfetto or chrome://tracing")
      ->type_name("DIR");
}

// How it runs as a daemon.
void AddDaemonFlags(CLI::App& app, Options& options) {
  app.add_option("--log-level", options.log_level, "Least severe entries to log")
      ->check(CLI::IsMember({"trace", "debug", "info", "warn", "error"}))
      ->capture_default_str();
  AddLogFlags(app, options.log);
  app.add_option("--http-listen", options.http_listen,
                 "Address of /metrics, /livez, /readyz and /statusz. Default: nowhere")
      ->type_name("HOST:PORT");
  app.add_option(
         "--leave-within", options.leave_within,
         "Time for a job to write a checkpoint after SIGTERM or SIGINT; a supervisor that kills should wait longer")
      ->type_name("SECONDS")
      ->check(CLI::NonNegativeNumber)
      ->capture_default_str();
  app.add_flag("--insecure", options.insecure, "Allow --http-listen on an address that other machines can reach");
}

void AddFlags(CLI::App& app, Options& options) {
  app.set_version_flag("--version", std::string(kVersion));
  AddIdentityFlags(app, options);
  AddFolderFlags(app, options);
  AddDaemonFlags(app, options);
}

void FillDefaults(Options& options) {
  if (options.device == "cuda") options.device = "cuda:0";
  if (options.name.empty()) options.name = DefaultName(options);
  if (options.threads == 0) options.threads = std::max(1, static_cast<int>(std::thread::hardware_concurrency()));
  if (options.data_address.empty()) options.data_address = DefaultDataAddress(options.orchestrator);
}

// A worker whose peers cannot reach it would fail every job; what this machine itself can tell, it tells at once. On a
// GPU NCCL may listen elsewhere.
std::string WrongAddress(const Options& options) {
  if (options.device != "cpu") return "";
  const std::string problem = DataAddressProblem(options.data_address);
  if (problem.empty()) return "";
  return absl::StrCat("--data-address: ", problem,
                      ". Give an address of this machine (ip address lists them), or a name that resolves to one");
}

std::string WrongHttpAddress(const Options& options) {
  if (options.http_listen.empty()) return "";
  return std::string(
      CheckListenAddress("--http-listen", options.http_listen, options.tls.given(), options.insecure).message());
}

}  // namespace

std::string DefaultDataAddress(const std::string& orchestrator) {
  return IsLoopback(HostOf(orchestrator)) ? "127.0.0.1" : HostName();
}

ParsedOptions ParseOptions(int argc, char** argv) {
  ParsedOptions parsed;
  CLI::App app("Hosts stages of pipelines on one device, for a GPipe orchestrator.", "gpipe-worker");
  app.footer(kFooter);
  AddFlags(app, parsed.options);
  try {
    app.parse(argc, argv);
  } catch (const CLI::ParseError& error) {
    parsed.exit_code = app.exit(error) == 0 ? 0 : kUsage;
    return parsed;
  }
  FillDefaults(parsed.options);
  for (const std::string& problem : {WrongAddress(parsed.options), WrongHttpAddress(parsed.options)}) {
    if (problem.empty()) continue;
    std::cerr << problem << '\n';
    parsed.exit_code = kUsage;
  }
  return parsed;
}

}  // namespace gpipe::worker
