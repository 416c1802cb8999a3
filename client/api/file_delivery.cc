#include "client/api/file_delivery.h"

#include "common/artifacts/file_hash.h"
#include "common/artifacts/local_store.h"
#include "common/artifacts/transfer.h"
#include "common/status_macros.h"

namespace gpipe::client {

absl::StatusOr<v1::ArtifactRef> FileDelivery::Give(const std::filesystem::path& path) {
  TransferOptions options = client_.transfer_options();
  options.memory = &memory_;
  if (client_.private_store().empty()) return UploadFile(client_.artifacts(), path, options);
  GPIPE_ASSIGN_OR_RETURN(HashedFile file, HashFile(path, options));
  GPIPE_RETURN_IF_ERROR(ReferToFile(client_.private_store(), file, path));
  return std::move(file.ref);
}

}  // namespace gpipe::client
