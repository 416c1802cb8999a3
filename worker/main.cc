#include <cstdlib>
#include <iostream>
#include <memory>

#include "common/descriptor_limit.h"
#include "common/log_output.h"
#include "common/logging.h"
#include "common/malloc_setup.h"
#include "common/net/grpc_log.h"
#include "spdlog/spdlog.h"
#include "worker/daemon.h"
#include "worker/options.h"

namespace {
constexpr int kUsage = 2;
}

int main(int argc, char** argv) {
  gpipe::KeepFreedPieces();
  gpipe::RaiseDescriptorLimit();
  const gpipe::worker::ParsedOptions parsed = gpipe::worker::ParseOptions(argc, argv);
  if (parsed.exit_code) return *parsed.exit_code;
  if (absl::Status status = gpipe::InitLogging("gpipe-worker", parsed.options.log_level); !status.ok()) {
    std::cerr << status.message() << '\n';
    return EXIT_FAILURE;
  }
  gpipe::LogGrpc();
  const auto log_context = std::make_shared<gpipe::LogContextSource>();
  log_context->Follow([name = parsed.options.name] { return gpipe::LogContext{.worker = name}; });
  if (absl::Status status = gpipe::SetLogOutput(parsed.options.log, log_context); !status.ok()) {
    std::cerr << status.message() << '\n';
    return kUsage;
  }
  const absl::Status status = gpipe::worker::RunWorker(parsed.options, *log_context);
  if (status.ok()) return EXIT_SUCCESS;
  spdlog::error("{}", std::string(status.message()));
  return EXIT_FAILURE;
}
