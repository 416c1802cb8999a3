#ifndef GPIPE_COMMON_ARTIFACTS_TRANSFER_H_
#define GPIPE_COMMON_ARTIFACTS_TRANSFER_H_

#include <filesystem>

#include "absl/status/statusor.h"
#include "absl/types/span.h"
#include "common/artifacts/transfer_options.h"
#include "gpipe/v1/pipeline_service.grpc.pb.h"

namespace gpipe {

// Moving files to and from the orchestrator by content. Any thread; blocking. Bytes travel in pieces of 1 MiB.

// Hashes the file (HashFile, whose errors it has) and sends it unless the orchestrator has it already. DATA_LOSS: it
// was changed in between.
absl::StatusOr<v1::ArtifactRef> UploadFile(v1::ArtifactService::StubInterface& stub, const std::filesystem::path& path,
                                           const TransferOptions& options = {});

// Fetches into `path` (atomically; its folder must exist), resuming nothing. DATA_LOSS when the content is not what ref
// says.
absl::Status DownloadFile(v1::ArtifactService::StubInterface& stub, const v1::ArtifactRef& ref,
                          const std::filesystem::path& path, const TransferOptions& options = {});

// Fills `data` with the bytes from offset on. Only their number is checked (DATA_LOSS), as the hash is of the whole.
absl::Status ReadRange(v1::ArtifactService::StubInterface& stub, const v1::ArtifactRef& ref, int64_t offset,
                       absl::Span<char> data);

}  // namespace gpipe

#endif  // GPIPE_COMMON_ARTIFACTS_TRANSFER_H_
