#ifndef GPIPE_COMMON_ARTIFACTS_DISK_ROOM_H_
#define GPIPE_COMMON_ARTIFACTS_DISK_ROOM_H_

#include <cstdint>
#include <filesystem>

#include "absl/status/status.h"

namespace gpipe {

// What files leave free on the disk of the orchestrator's state, of small disks a twentieth: a job that needs more room
// than there is fails alone, but without room for the database all would.
inline constexpr int64_t kDatabaseRoom = int64_t{256} << 20;
constexpr int64_t DatabaseRoom(int64_t capacity) {
  return capacity / 20 < kDatabaseRoom ? capacity / 20 : kDatabaseRoom;
}

// Whether a file of so many bytes has room in `folder`, and the database too. RESOURCE_EXHAUSTED says what is missing.
absl::Status CheckRoom(const std::filesystem::path& folder, int64_t bytes);

// Takes that much of the disk for an open file at once, so that several files do not count on the same room; where the
// file system cannot, nothing happens. RESOURCE_EXHAUSTED: it is full.
absl::Status TakeRoom(int fd, const std::filesystem::path& path, int64_t bytes);

}  // namespace gpipe

#endif  // GPIPE_COMMON_ARTIFACTS_DISK_ROOM_H_
