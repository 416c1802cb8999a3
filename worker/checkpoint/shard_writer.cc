#include "worker/checkpoint/shard_writer.h"

#include <system_error>

#include "common/status_macros.h"
#include "worker/data/tensor_file.h"

namespace gpipe::worker {

absl::StatusOr<v1::ArtifactRef> UploadShard(std::string_view name, const std::vector<NamedTensor>& tensors,
                                            const std::filesystem::path& folder, Artifacts& artifacts) {
  const std::filesystem::path path = folder / name;
  GPIPE_RETURN_IF_ERROR(WriteTensorFile(path, tensors));
  absl::StatusOr<v1::ArtifactRef> ref = artifacts.Upload(path);
  std::error_code ignored;
  std::filesystem::remove(path, ignored);
  return ref;
}

}  // namespace gpipe::worker
