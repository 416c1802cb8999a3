#include "client/api/file_delivery.h"

#include "common/artifacts/local_store.h"
#include "common/artifacts/transfer.h"
#include "common/status_macros.h"

namespace gpipe::client {

absl::StatusOr<std::vector<v1::ArtifactRef>> FileDelivery::Give(const std::vector<std::filesystem::path>& paths) {
  TransferOptions options = client_.transfer_options();
  options.memory = &memory_;
  GPIPE_ASSIGN_OR_RETURN(const std::vector<HashedFile> files, HashFiles(paths, options));
  std::vector<v1::ArtifactRef> refs;
  for (size_t i = 0; i < paths.size(); ++i) {
    GPIPE_ASSIGN_OR_RETURN(refs.emplace_back(), GiveHashed(files[i], paths[i], options));
  }
  return refs;
}

absl::StatusOr<v1::ArtifactRef> FileDelivery::GiveHashed(const HashedFile& file, const std::filesystem::path& path,
                                                         const TransferOptions& options) {
  if (!client_.private_store().empty()) {
    GPIPE_RETURN_IF_ERROR(ReferToFile(client_.private_store(), file, path));
    return file.ref;
  }
  const absl::Status sent = UploadHashed(client_.artifacts(), file.ref, path, options);
  if (!absl::IsDataLoss(sent)) {
    GPIPE_RETURN_IF_ERROR(sent);
    return file.ref;
  }
  // On a file system that does not keep its times the memory is wrong.
  TransferOptions without = options;
  without.memory = nullptr;
  return UploadFile(client_.artifacts(), path, without);
}

}  // namespace gpipe::client
