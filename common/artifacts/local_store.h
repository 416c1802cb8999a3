#ifndef GPIPE_COMMON_ARTIFACTS_LOCAL_STORE_H_
#define GPIPE_COMMON_ARTIFACTS_LOCAL_STORE_H_

#include <filesystem>

#include "absl/status/statusor.h"
#include "common/artifacts/file_hash.h"
#include "gpipe/v1/worker_session.pb.h"

namespace gpipe {

// The orchestrator's folder of artifacts, for those on its machine who may read it, and for those who may write to it:
// whoever can is trusted with its content as the orchestrator itself is, so that what they say of it is not checked.
// Under the name of its content there is either the content, or, with `.ref` behind the name, where to find it: a file
// of the user's, used in place. Any thread.

// Where the content is, to be read only. NOT_FOUND: not here. FAILED_PRECONDITION, naming the user's file: it is not
// what it was when it was given. INVALID_ARGUMENT: `ref` is no reference.
absl::StatusOr<std::filesystem::path> FindArtifact(const std::filesystem::path& folder, const v1::ArtifactRef& ref);

// From now on the content of `file` is found at `path`. Nothing is copied, and the file must stay as it is for as long
// as somebody may want it: never for a store that outlives the command that gives it (`gpipe run`'s does not).
absl::Status ReferToFile(const std::filesystem::path& folder, const HashedFile& file,
                         const std::filesystem::path& path);

// OK when all the files that the store refers to are what they were; else as FindArtifact says it of the first.
absl::Status CheckReferences(const std::filesystem::path& folder);

}  // namespace gpipe

#endif  // GPIPE_COMMON_ARTIFACTS_LOCAL_STORE_H_
