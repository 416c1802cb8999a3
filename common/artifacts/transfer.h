#ifndef GPIPE_COMMON_ARTIFACTS_TRANSFER_H_
#define GPIPE_COMMON_ARTIFACTS_TRANSFER_H_

#include <filesystem>

#include "absl/status/statusor.h"
#include "absl/types/span.h"
#include "common/artifacts/connections.h"
#include "common/artifacts/transfer_options.h"
#include "gpipe/v1/pipeline_service.pb.h"

namespace gpipe {

// Moving files to and from the orchestrator by content. Any thread; blocking. Bytes travel in pieces of 1 MiB; what
// comes from there in parts of up to 16 MiB over all connections at once, each by a thread that ends with the call.
// CANCELLED soon after options.stop is stopped; otherwise the orchestrator's errors, and UNAVAILABLE without it.

// Hashes the file (HashFile, whose errors it has) and sends it unless the orchestrator has it already. DATA_LOSS: it
// was changed in between.
absl::StatusOr<v1::ArtifactRef> UploadFile(ArtifactConnections& connections, const std::filesystem::path& path,
                                           const TransferOptions& options = {});

// The same of a file that is hashed already; `options.memory` is not asked, so that DATA_LOSS says that it was wrong,
// too.
absl::Status UploadHashed(ArtifactConnections& connections, const v1::ArtifactRef& ref,
                          const std::filesystem::path& path, const TransferOptions& options = {});

// Sends a worker's part, whatever the orchestrator has. DATA_LOSS: it is not what `ref` says.
absl::Status UploadPart(ArtifactConnections& connections, const v1::PartOf& of, const v1::ArtifactRef& ref,
                        const std::filesystem::path& path, const TransferOptions& options = {});

// Fetches into `path` (atomically; its folder must exist), resuming nothing. DATA_LOSS when the content is not what ref
// says.
absl::Status DownloadFile(ArtifactConnections& connections, const v1::ArtifactRef& ref,
                          const std::filesystem::path& path, const TransferOptions& options = {});

// Fills `data` with the bytes from offset on. Only their number is checked (DATA_LOSS), as the hash is of the whole.
absl::Status ReadRange(ArtifactConnections& connections, const v1::ArtifactRef& ref, int64_t offset,
                       absl::Span<char> data, const TransferOptions& options = {});

}  // namespace gpipe

#endif  // GPIPE_COMMON_ARTIFACTS_TRANSFER_H_
