#include "common/artifacts/file_hash.h"

#include <fcntl.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <optional>
#include <string>
#include <thread>
#include <utility>

#include "absl/base/thread_annotations.h"
#include "absl/cleanup/cleanup.h"
#include "absl/strings/str_cat.h"
#include "absl/synchronization/mutex.h"
#include "absl/time/clock.h"
#include "common/artifacts/hash_memory.h"
#include "common/file.h"
#include "common/logging.h"
#include "common/sha256.h"
#include "common/status_macros.h"

namespace gpipe {
namespace {

namespace fs = std::filesystem;

constexpr size_t kPieceBytes = 1 << 20;
// The disk is kept busy with what comes next while this processor hashes.
constexpr off_t kReadAhead = off_t{16} << 20;
constexpr size_t kMostThreads = 4;
constexpr absl::Duration kReportInterval = absl::Milliseconds(100);

absl::StatusOr<std::string> Hash(int fd, const fs::path& path, int64_t size, const TransferOptions& options) {
  Sha256 hash;
  std::string piece(kPieceBytes, '\0');
  off_t offset = 0;
  ssize_t count;
  while ((count = pread(fd, piece.data(), piece.size(), offset)) != 0) {
    if (count < 0 && errno == EINTR) continue;
    if (count < 0) return ErrnoStatus(errno, "cannot read", path);
    if (options.stop.stop_requested()) return absl::CancelledError("stopped");
    posix_fadvise(fd, offset + kReadAhead, kPieceBytes, POSIX_FADV_WILLNEED);
    hash.Update(std::string_view(piece.data(), static_cast<size_t>(count)));
    offset += count;
    options.Report(FileProgress::Doing::kHashing, path, offset, size);
  }
  return hash.HexDigest();
}

HashedFile MakeHashed(std::string sha256, const FileStamp& stamp) {
  HashedFile file;
  file.ref.set_sha256(std::move(sha256));
  file.ref.set_size(stamp.size);
  file.stamp = stamp;
  return file;
}

std::optional<HashedFile> Recall(const fs::path& path, const FileStamp& stamp, const TransferOptions& options) {
  if (options.memory == nullptr) return std::nullopt;
  std::optional<std::string> known = options.memory->Find(path, stamp);
  return known ? std::optional(MakeHashed(*std::move(known), stamp)) : std::nullopt;
}

absl::StatusOr<HashedFile> ReadAndHash(const fs::path& path, const FileStamp& stamp, const TransferOptions& options) {
  const int fd = open(path.c_str(), O_RDONLY | O_CLOEXEC);
  if (fd < 0) return ErrnoStatus(errno, "cannot read", path);
  const auto closer = absl::MakeCleanup([fd] { close(fd); });
  GPIPE_ASSIGN_OR_RETURN(std::string sha256, Hash(fd, path, stamp.size, options));
  struct stat after{};
  if (fstat(fd, &after) != 0) return ErrnoStatus(errno, "cannot read", path);
  if (StampOf(after) != stamp)
    return absl::AbortedError(absl::StrCat(path.string(), ": was changed while it was read"));
  return MakeHashed(std::move(sha256), stamp);
}

// Hashes those of `paths` that `unknown` names into `files`, which have their stamps.
class ParallelHash {
 public:
  ParallelHash(const std::vector<fs::path>& paths, const std::vector<size_t>& unknown, const TransferOptions& options,
               std::vector<HashedFile>& files)
      : paths_(paths), unknown_(unknown), options_(options), files_(files) {
    for (const size_t i : unknown) total_ += files[i].stamp.size;
  }

  // The calling thread tells how far it is.
  absl::Status Run() {
    const size_t threads =
        std::min<size_t>({unknown_.size(), std::max(1u, std::thread::hardware_concurrency()), kMostThreads});
    const std::string name =
        unknown_.size() == 1 ? paths_[unknown_[0]].string() : absl::StrCat(unknown_.size(), " files");
    std::vector<std::jthread> running;
    for (size_t i = 0; i < threads; ++i) running.emplace_back([this] { HashSome(); });
    absl::MutexLock lock(&mutex_);
    const auto ended = [this]() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_) { return ended_ == unknown_.size(); };
    while (!mutex_.AwaitWithTimeout(absl::Condition(&ended), kReportInterval)) {
      const int64_t done = done_;
      mutex_.Unlock();
      options_.Report(FileProgress::Doing::kHashing, name, std::min(done, total_ - 1), total_);
      mutex_.Lock();
    }
    if (!unknown_.empty()) options_.Report(FileProgress::Doing::kHashing, name, total_, total_);
    return failure_;
  }

 private:
  void HashSome() {
    SetThreadName("hash");
    while (const std::optional<size_t> next = Next()) End(*next, HashOne(*next));
  }

  absl::StatusOr<HashedFile> HashOne(size_t file) {
    TransferOptions options;
    options.stop = options_.stop;
    options.on_progress = [this, before = int64_t{0}](const FileProgress& progress) mutable {
      absl::MutexLock lock(&mutex_);
      done_ += progress.done - std::exchange(before, progress.done);
    };
    return ReadAndHash(paths_[file], files_[file].stamp, options);
  }

  std::optional<size_t> Next() {
    absl::MutexLock lock(&mutex_);
    return next_ < unknown_.size() ? std::optional(unknown_[next_++]) : std::nullopt;
  }

  void End(size_t file, absl::StatusOr<HashedFile> hashed) {
    absl::MutexLock lock(&mutex_);
    ++ended_;
    if (hashed.ok()) {
      files_[file] = *std::move(hashed);
    } else if (failure_.ok()) {
      failure_ = hashed.status();
    }
  }

  const std::vector<fs::path>& paths_;
  const std::vector<size_t>& unknown_;
  const TransferOptions& options_;
  std::vector<HashedFile>& files_;  // Each entry is that of the thread that hashes it.
  int64_t total_ = 0;
  absl::Mutex mutex_;
  size_t next_ ABSL_GUARDED_BY(mutex_) = 0;
  size_t ended_ ABSL_GUARDED_BY(mutex_) = 0;
  int64_t done_ ABSL_GUARDED_BY(mutex_) = 0;
  absl::Status failure_ ABSL_GUARDED_BY(mutex_);
};

}  // namespace

absl::StatusOr<HashedFile> HashFile(const fs::path& path, const TransferOptions& options) {
  GPIPE_ASSIGN_OR_RETURN(const FileStamp stamp, StampOf(path));
  if (auto known = Recall(path, stamp, options)) return *std::move(known);
  const absl::Time begin = absl::Now();
  GPIPE_ASSIGN_OR_RETURN(HashedFile file, ReadAndHash(path, stamp, options));
  if (options.memory != nullptr) options.memory->Remember(path, stamp, file.ref.sha256(), begin);
  return file;
}

absl::StatusOr<std::vector<HashedFile>> HashFiles(const std::vector<fs::path>& paths, const TransferOptions& options) {
  std::vector<HashedFile> files(paths.size());
  std::vector<size_t> unknown;
  for (size_t i = 0; i < paths.size(); ++i) {
    GPIPE_ASSIGN_OR_RETURN(files[i].stamp, StampOf(paths[i]));
    auto known = Recall(paths[i], files[i].stamp, options);
    if (known) {
      files[i] = *std::move(known);
    } else {
      unknown.push_back(i);
    }
  }
  const absl::Time begin = absl::Now();
  GPIPE_RETURN_IF_ERROR(ParallelHash(paths, unknown, options, files).Run());
  for (const size_t i : unknown) {
    if (options.memory != nullptr) options.memory->Remember(paths[i], files[i].stamp, files[i].ref.sha256(), begin);
  }
  return files;
}

}  // namespace gpipe
