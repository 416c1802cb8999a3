#include "worker/data/mapped_file.h"

#include <fcntl.h>
#include <sys/mman.h>
#include <unistd.h>

#include <cerrno>
#include <utility>

#include "absl/strings/str_cat.h"
#include "common/file.h"

namespace gpipe::worker {

MappedFile::MappedFile(std::filesystem::path path, std::string name, const struct stat& opened, void* data)
    : path_(std::move(path)),
      name_(std::move(name)),
      size_(static_cast<uint64_t>(opened.st_size)),
      modified_(opened.st_mtim),
      data_(static_cast<const char*>(data)) {}

MappedFile::~MappedFile() {
  if (data_ != nullptr) ::munmap(const_cast<char*>(data_), size_);
}

absl::StatusOr<std::shared_ptr<const MappedFile>> MappedFile::Open(const std::filesystem::path& path,
                                                                   std::string name) {
  const int fd = ::open(path.c_str(), O_RDONLY | O_CLOEXEC);
  if (fd < 0) return ErrnoStatus(errno, "cannot open", path);
  struct stat info{};
  void* data = nullptr;
  int error = ::fstat(fd, &info) == 0 ? 0 : errno;
  if (error == 0 && info.st_size > 0) {
    data = ::mmap(nullptr, static_cast<size_t>(info.st_size), PROT_READ, MAP_SHARED, fd, 0);
    if (data == MAP_FAILED) error = errno;
  }
  ::close(fd);
  if (error != 0) return ErrnoStatus(error, "cannot map", path);
  return std::shared_ptr<const MappedFile>(new MappedFile(path, std::move(name), info, data));
}

absl::Status MappedFile::CheckUnchanged() const {
  struct stat now{};
  if (::stat(path_.c_str(), &now) != 0) return ErrnoStatus(errno, "cannot look at", path_);
  const bool same = static_cast<uint64_t>(now.st_size) == size_ && now.st_mtim.tv_sec == modified_.tv_sec &&
                    now.st_mtim.tv_nsec == modified_.tv_nsec;
  if (same) return absl::OkStatus();
  return absl::FailedPreconditionError(absl::StrCat("'", name_, "' was changed while the job reads it"));
}

void MappedFile::WillNeed(uint64_t begin, uint64_t bytes) const {
  static const uint64_t page = static_cast<uint64_t>(::sysconf(_SC_PAGESIZE));
  const uint64_t first = begin / page * page;
  // Only advice: what it cannot do, reading the page will.
  ::madvise(const_cast<char*>(data_) + first, begin + bytes - first, MADV_WILLNEED);
}

}  // namespace gpipe::worker
