#ifndef GPIPE_ORCHESTRATOR_JOBS_DISK_GUARD_H_
#define GPIPE_ORCHESTRATOR_JOBS_DISK_GUARD_H_

#include <filesystem>
#include <string>

namespace gpipe::orchestrator {

// Watches the disk of the orchestrator's state, which others fill, too: a batch that cannot be stored would be the end
// of the process, and with it of every job. Files leave room for the database (common/artifacts/disk_room.h); when even
// most of that is gone the disk counts as full, until there is some again. Meanwhile nothing new is taken on, and a
// reserve, a file as large as what is still written then, is given back. For one thread at a time.
class DiskGuard {
 public:
  static constexpr char kReserveFile[] = "reserve";

  // Makes the folder's reserve, or gives it back, at once. The folder need not be there.
  explicit DiskGuard(std::filesystem::path folder);

  // True when the disk has become full, or has room again, since the last look. One system call.
  bool Look();
  bool full() const { return full_; }
  // Says where, and what would help.
  std::string why() const;

 private:
  void MakeReserve(int64_t bytes) const;
  void GiveReserveBack() const;

  const std::filesystem::path folder_;
  bool full_ = false;
};

}  // namespace gpipe::orchestrator

#endif  // GPIPE_ORCHESTRATOR_JOBS_DISK_GUARD_H_
