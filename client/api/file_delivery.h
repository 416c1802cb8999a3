#ifndef GPIPE_CLIENT_API_FILE_DELIVERY_H_
#define GPIPE_CLIENT_API_FILE_DELIVERY_H_

#include <filesystem>

#include "absl/status/statusor.h"
#include "client/api/cluster_client.h"
#include "common/artifacts/hash_memory.h"
#include "gpipe/v1/worker_session.pb.h"

namespace gpipe::client {

// Gives files to the orchestrator: an orchestrator of this command's own is told where they are, another one gets what
// it has not got. A file whose hash the user's HashMemory knows is not read for it. One thread.
class FileDelivery {
 public:
  // `client` must outlive this.
  explicit FileDelivery(ClusterClient& client) : client_(client), memory_(HashMemory::DefaultFile()) {}

  // Errors are those of UploadFile (common/artifacts/transfer.h).
  absl::StatusOr<v1::ArtifactRef> Give(const std::filesystem::path& path);

 private:
  ClusterClient& client_;
  HashMemory memory_;
};

}  // namespace gpipe::client

#endif  // GPIPE_CLIENT_API_FILE_DELIVERY_H_
