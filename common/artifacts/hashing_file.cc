#include "common/artifacts/hashing_file.h"

#include <fcntl.h>

#include <utility>

#include "common/logging.h"
#include "common/status_macros.h"

namespace gpipe {
namespace {

// Less than this is hashed sooner than another thread is woken.
constexpr size_t kMinShared = 64 << 10;

}  // namespace

absl::StatusOr<std::unique_ptr<HashingFile>> HashingFile::Create(const std::filesystem::path& path, Flush flush,
                                                                  std::stop_token stop) {
  GPIPE_ASSIGN_OR_RETURN(AtomicFile file, AtomicFile::Create(path));
  return std::unique_ptr<HashingFile>(new HashingFile(std::move(file), flush, std::move(stop)));
}

HashingFile::HashingFile(AtomicFile file, Flush flush, std::stop_token stop)
    : file_(std::move(file)), flush_(flush), stop_(std::move(stop)), thread_([this] { Loop(); }) {}

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
  GPIPE_RETURN_IF_ERROR(file_.Append(data));
  // A hint: what comes of it, the sync will tell.
  if (flush_ == Flush::kEarly) {
    sync_file_range(file_.fd(), size_, static_cast<off_t>(data.size()), SYNC_FILE_RANGE_WRITE);
  }
  size_ += static_cast<int64_t>(data.size());
  return absl::OkStatus();
}

absl::StatusOr<v1::ArtifactRef> HashingFile::Finish() {
  WaitUntilHashed();
  v1::ArtifactRef ref;
  ref.set_sha256(hash_.HexDigest());
  ref.set_size(size_);
  GPIPE_RETURN_IF_ERROR(file_.Publish());
  return ref;
}

}  // namespace gpipe
