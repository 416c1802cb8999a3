#ifndef GPIPE_COMMON_ARTIFACTS_LAYOUT_H_
#define GPIPE_COMMON_ARTIFACTS_LAYOUT_H_

#include <filesystem>
#include <string_view>

namespace gpipe {

// Below the folder of artifacts, what is being made: on the same file system, and emptied when the orchestrator starts.
inline constexpr char kTemporaryFolder[] = "tmp";

// Where the orchestrator keeps a file. REQUIRES: IsSha256(sha256).
inline std::filesystem::path ArtifactPath(const std::filesystem::path& folder, std::string_view sha256) {
  return folder / sha256.substr(0, 2) / sha256;
}

}  // namespace gpipe

#endif  // GPIPE_COMMON_ARTIFACTS_LAYOUT_H_
