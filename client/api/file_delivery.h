#ifndef GPIPE_CLIENT_API_FILE_DELIVERY_H_
#define GPIPE_CLIENT_API_FILE_DELIVERY_H_

#include <filesystem>
#include <vector>

#include "absl/status/statusor.h"
#include "client/api/cluster_client.h"
#include "common/artifacts/file_hash.h"
#include "common/artifacts/hash_memory.h"
#include "gpipe/v1/worker_session.pb.h"

namespace gpipe::client {

// Gives files to the orchestrator: an orchestrator of this command's own is told where they are, another one gets what
// it has not got. A file whose hash the user's HashMemory knows is not read for it. One thread.
class FileDelivery {
 public:
  // `client` must outlive this.
  explicit FileDelivery(ClusterClient& client) : client_(client), memory_(HashMemory::DefaultFile()) {}

  // In the order of the paths. Errors are those of HashFiles and UploadFile (common/artifacts).
  absl::StatusOr<std::vector<v1::ArtifactRef>> Give(const std::vector<std::filesystem::path>& paths);

 private:
  absl::StatusOr<v1::ArtifactRef> GiveHashed(const HashedFile& file, const std::filesystem::path& path,
                                             const TransferOptions& options);

  ClusterClient& client_;
  HashMemory memory_;
};

}  // namespace gpipe::client

#endif  // GPIPE_CLIENT_API_FILE_DELIVERY_H_
