#include "orchestrator/jobs/disk_guard.h"

#include <fcntl.h>
#include <unistd.h>

#include <cstdint>
#include <cstring>
#include <system_error>
#include <utility>

#include "absl/strings/str_cat.h"
#include "common/artifacts/disk_room.h"
#include "spdlog/spdlog.h"

namespace gpipe::orchestrator {
namespace fs = std::filesystem;

DiskGuard::DiskGuard(fs::path folder) : folder_(std::move(folder)) {
  std::error_code error;
  fs::create_directories(folder_, error);  // Opening the store tells of an error.
  const fs::space_info space = fs::space(folder_, error);
  if (!error && !Look()) MakeReserve(DatabaseRoom(static_cast<int64_t>(space.capacity)) / 8);
}

bool DiskGuard::Look() {
  std::error_code error;
  const fs::space_info space = fs::space(folder_, error);
  if (error) return false;  // What is written will tell.
  const int64_t room = DatabaseRoom(static_cast<int64_t>(space.capacity));
  // What the reserve gives back does not make the disk any less full.
  const bool full = static_cast<int64_t>(space.available) < (full_ ? room / 2 : room / 4);
  if (full == full_) return false;
  full_ = full;
  full ? GiveReserveBack() : MakeReserve(room / 8);
  return true;
}

std::string DiskGuard::why() const {
  if (!full_) return "";
  return absl::StrCat("the disk of the orchestrator's state, ", folder_.string(),
                      ", is full; make room, or delete jobs (gpipe job delete)");
}

void DiskGuard::MakeReserve(int64_t bytes) const {
  const fs::path path = folder_ / kReserveFile;
  const int file = open(path.c_str(), O_RDWR | O_CREAT | O_CLOEXEC, 0600);
  const int error = file < 0 ? errno : posix_fallocate(file, 0, bytes);
  if (file >= 0) close(file);
  if (error != 0) spdlog::warn("no reserve of {} bytes could be made in {}: {}", bytes, path.string(), strerror(error));
}

void DiskGuard::GiveReserveBack() const {
  std::error_code error;
  fs::remove(folder_ / kReserveFile, error);
  if (error) spdlog::error("the reserve in {} cannot be given back: {}", folder_.string(), error.message());
}

}  // namespace gpipe::orchestrator
