#include "common/artifacts/hashing_file.h"

#include <fcntl.h>

#include <cstdlib>
#include <utility>

#include "common/logging.h"
#include "common/status_macros.h"

namespace gpipe {
namespace {

// Less than this is hashed sooner than another thread is woken.
constexpr size_t kMinShared = 64 << 10;
// Large enough to keep a disk busy with one write at a time.
constexpr size_t kStagingBytes = 16 << 20;
constexpr size_t kBlockBytes = 4096;

// False: the file system cannot do that.
bool SetDirect(int fd, bool direct) {
  const int flags = fcntl(fd, F_GETFL);
  return flags >= 0 && fcntl(fd, F_SETFL, direct ? flags | O_DIRECT : flags & ~O_DIRECT) == 0;
}

}  // namespace

absl::StatusOr<std::unique_ptr<HashingFile>> HashingFile::Create(const std::filesystem::path& path, Flush flush,
                                                                 std::stop_token stop) {
  GPIPE_ASSIGN_OR_RETURN(AtomicFile file, AtomicFile::Create(path));
  return std::unique_ptr<HashingFile>(new HashingFile(std::move(file), flush, std::move(stop)));
}

HashingFile::HashingFile(AtomicFile file, Flush flush, std::stop_token stop)
    : file_(std::move(file)), flush_(flush), stop_(std::move(stop)), thread_([this] { Loop(); }) {
  if (flush_ != Flush::kEarly || !SetDirect(file_.fd(), true)) return;
  staging_.reset(static_cast<char*>(std::aligned_alloc(kBlockBytes, kStagingBytes)));
  direct_ = staging_ != nullptr;
  if (!direct_) SetDirect(file_.fd(), false);
}

HashingFile::~HashingFile() {
  {
    absl::MutexLock lock(&mutex_);
    closed_ = true;
  }
  thread_.join();
}

void HashingFile::Loop() {
  SetThreadName("hash");
  while (true) {
    std::string_view piece;
    {
      absl::MutexLock lock(&mutex_);
      mutex_.Await(absl::Condition(this, &HashingFile::HasWork));
      if (closed_) return;
      piece = piece_;
    }
    hash_.Update(piece);
    absl::MutexLock lock(&mutex_);
    piece_ = {};
  }
}

void HashingFile::WaitUntilHashed() {
  absl::MutexLock lock(&mutex_);
  mutex_.Await(absl::Condition(this, &HashingFile::Hashed));
}

absl::Status HashingFile::Append(std::string_view data) {
  WaitUntilHashed();
  if (data.empty()) return absl::OkStatus();
  if (stop_.stop_requested()) return absl::CancelledError("stopped");
  if (data.size() < kMinShared) {
    hash_.Update(data);
  } else {
    absl::MutexLock lock(&mutex_);
    piece_ = data;
  }
  const absl::Status written = Write(data);
  if (!written.ok()) WaitUntilHashed();
  size_ += static_cast<int64_t>(data.size());
  return written;
}

absl::Status HashingFile::Write(std::string_view data) {
  while (direct_ && !data.empty()) {
    const size_t count = data.copy(staging_.get() + staged_, kStagingBytes - staged_);
    staged_ += count;
    data.remove_prefix(count);
    if (staged_ == kStagingBytes) GPIPE_RETURN_IF_ERROR(WriteStaged());
  }
  if (data.empty()) return absl::OkStatus();
  GPIPE_RETURN_IF_ERROR(file_.Append(data));
  // A hint: what comes of it, the sync will tell.
  if (flush_ == Flush::kEarly) {
    sync_file_range(file_.fd(), size_, static_cast<off_t>(data.size()), SYNC_FILE_RANGE_WRITE);
  }
  return absl::OkStatus();
}

absl::Status HashingFile::WriteStaged() {
  const std::string_view staged(staging_.get(), std::exchange(staged_, 0));
  absl::Status written = file_.Append(staged);
  if (written.ok() || !direct_) return written;
  // Some file systems say only now that they cannot; what else is wrong shows again.
  EndDirect();
  return file_.Append(staged);
}

void HashingFile::EndDirect() {
  if (std::exchange(direct_, false)) SetDirect(file_.fd(), false);
}

absl::StatusOr<v1::ArtifactRef> HashingFile::Finish() {
  WaitUntilHashed();
  v1::ArtifactRef ref;
  ref.set_sha256(hash_.HexDigest());
  ref.set_size(size_);
  EndDirect();  // The last bytes are no whole block.
  GPIPE_RETURN_IF_ERROR(WriteStaged());
  GPIPE_RETURN_IF_ERROR(file_.Publish());
  return ref;
}

}  // namespace gpipe
