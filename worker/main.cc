#include <cstdlib>
#include <iostream>

#include "common/descriptor_limit.h"
#include "common/logging.h"
#include "common/malloc_setup.h"
#include "spdlog/spdlog.h"
#include "worker/daemon.h"
#include "worker/options.h"

int main(int argc, char** argv) {
  gpipe::KeepFreedPieces();
  gpipe::RaiseDescriptorLimit();
  const gpipe::worker::ParsedOptions parsed = gpipe::worker::ParseOptions(argc, argv);
  if (parsed.exit_code) return *parsed.exit_code;
  if (absl::Status status = gpipe::InitLogging("gpipe-worker", parsed.options.log_level); !status.ok()) {
    std::cerr << status.message() << '\n';
    return EXIT_FAILURE;
  }
  const absl::Status status = gpipe::worker::RunWorker(parsed.options);
  if (status.ok()) return EXIT_SUCCESS;
  spdlog::error("{}", std::string(status.message()));
  return EXIT_FAILURE;
}
