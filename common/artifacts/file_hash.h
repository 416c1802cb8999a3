#ifndef GPIPE_COMMON_ARTIFACTS_FILE_HASH_H_
#define GPIPE_COMMON_ARTIFACTS_FILE_HASH_H_

#include <filesystem>
#include <vector>

#include "absl/status/statusor.h"
#include "common/artifacts/file_stamp.h"
#include "common/artifacts/transfer_options.h"
#include "gpipe/v1/worker_session.pb.h"

namespace gpipe {

// A file's content by hash and size, and the stamp that the file had while it was found.
struct HashedFile {
  v1::ArtifactRef ref;
  FileStamp stamp;
};

// Reads the file from beginning to end, or asks options.memory. Any thread, if the memory is its own; blocking.
// NOT_FOUND and PERMISSION_DENIED name the file, INVALID_ARGUMENT names a folder; ABORTED: it was changed meanwhile;
// CANCELLED: options.stop.
absl::StatusOr<HashedFile> HashFile(const std::filesystem::path& path, const TransferOptions& options = {});

// The same of several files, a few at a time on threads of their own, in the order of the paths: one processor hashes
// more slowly than a fast disk reads. Progress is that of all together, told on this thread. The first failure of any.
absl::StatusOr<std::vector<HashedFile>> HashFiles(const std::vector<std::filesystem::path>& paths,
                                                  const TransferOptions& options = {});

}  // namespace gpipe

#endif  // GPIPE_COMMON_ARTIFACTS_FILE_HASH_H_
