#ifndef GPIPE_CLIENT_API_BACKUP_H_
#define GPIPE_CLIENT_API_BACKUP_H_

#include <cstdint>
#include <filesystem>

#include "absl/status/statusor.h"
#include "client/api/cluster_client.h"

namespace gpipe::client {

// A backup is a folder, or that folder in a tar archive: the files of an orchestrator's state folder, and SHA256SUMS,
// as sha256sum writes it, of all of them. It appears under its name when it is whole, or never.

struct BackupSize {
  int64_t files = 0;
  int64_t bytes = 0;
};

// Takes one of a running orchestrator into `target`: a new folder, or an archive if the name ends with `.tar`.
// INVALID_ARGUMENT: the target is there already.
absl::StatusOr<BackupSize> TakeBackup(ClusterClient& client, const std::filesystem::path& target, bool with_files);

// Makes a state folder of a backup's folder. Every file is compared with its sum. INVALID_ARGUMENT: there is something
// in `state_dir`, or the folder is no whole backup; DATA_LOSS names a file that is not what it was; then nothing is
// there.
absl::StatusOr<BackupSize> RestoreBackup(const std::filesystem::path& backup, const std::filesystem::path& state_dir);

}  // namespace gpipe::client

#endif  // GPIPE_CLIENT_API_BACKUP_H_
