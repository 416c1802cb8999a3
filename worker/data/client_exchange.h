#ifndef GPIPE_WORKER_DATA_CLIENT_EXCHANGE_H_
#define GPIPE_WORKER_DATA_CLIENT_EXCHANGE_H_

#include <c10/core/Device.h>

#include <cstdint>
#include <filesystem>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "gpipe/v1/pipeline_service.pb.h"
#include "worker/data/artifacts.h"
#include "worker/data/shared_files.h"
#include "worker/stage/stage.h"

namespace gpipe::worker {

// Tensors that go between a client and a worker, each time in a safetensors file: in a folder that both see
// (ClientData.exchange), or through the orchestrator. Used by the engine's thread only.
class ClientExchange {
 public:
  struct Options {
    std::string folder;             // As in the spec; empty: there is none.
    std::string job;                // With `worker`, what tells the files apart that are written there.
    int worker = 0;                 // Its index in the attempt.
    std::filesystem::path scratch;  // For files on their way from and to the orchestrator.
    SharedFiles shared = SharedFiles();
  };
  // `artifacts` outlives the exchange.
  ClientExchange(Options options, Artifacts& artifacts) : options_(std::move(options)), artifacts_(artifacts) {}

  // Those of `names` that the file has, on the device, with memory of their own. INVALID_ARGUMENT: the file is not in
  // the folder; or it is no good safetensors file.
  absl::StatusOr<Values> Read(const v1::ArtifactRef& file, const std::vector<std::string>& names, c10::Device device);

  // What this worker made in a round. REQUIRES: the device has done what makes the tensors.
  absl::StatusOr<v1::ArtifactRef> Write(int64_t round, const std::vector<NamedTensor>& tensors);

 private:
  absl::StatusOr<std::filesystem::path> Locate(const v1::ArtifactRef& file);
  std::filesystem::path Fetched() const { return options_.scratch / "fetched.safetensors"; }

  const Options options_;
  Artifacts& artifacts_;
};

}  // namespace gpipe::worker

#endif  // GPIPE_WORKER_DATA_CLIENT_EXCHANGE_H_
