#ifndef GPIPE_COMMON_ARTIFACTS_HASHING_FILE_H_
#define GPIPE_COMMON_ARTIFACTS_HASHING_FILE_H_

#include <cstdint>
#include <cstdlib>
#include <filesystem>
#include <memory>
#include <stop_token>
#include <string_view>
#include <thread>

#include "absl/base/thread_annotations.h"
#include "absl/status/statusor.h"
#include "absl/synchronization/mutex.h"
#include "common/file.h"
#include "common/sha256.h"
#include "gpipe/v1/worker_session.pb.h"

namespace gpipe {

// A file that is written and hashed in one pass: a thread of its own hashes what the caller's writes meanwhile, as
// neither on one processor keeps up with a fast disk. It appears at Finish, or never. Used by one thread.
class HashingFile {
 public:
  // When the disk gets the bytes.
  enum class Flush {
    // As they come, past the system's cache where it can be passed by: for a file that is going to be synced. What is
    // in the cache costs a processor as much as hashing, and is written no sooner.
    kEarly,
    // When the system likes, which may be never: for a file that is soon read and removed.
    kLate,
  };

  static absl::StatusOr<std::unique_ptr<HashingFile>> Create(const std::filesystem::path& path, Flush flush,
                                                             std::stop_token stop = {});
  ~HashingFile();
  HashingFile(const HashingFile&) = delete;
  HashingFile& operator=(const HashingFile&) = delete;

  // `data` must stay as it is until the next Append, which may be one of nothing, or Finish has returned. CANCELLED
  // once `stop` is stopped. After an error only an Append of nothing and destruction are left.
  absl::Status Append(std::string_view data);

  // Puts the file at its path, whole for every reader but not synced, and says what it is.
  absl::StatusOr<v1::ArtifactRef> Finish();

 private:
  HashingFile(AtomicFile file, Flush flush, std::stop_token stop);
  void Loop();
  void WaitUntilHashed();
  absl::Status Write(std::string_view data);
  absl::Status WriteStaged();
  void EndDirect();
  bool Hashed() const ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_) { return piece_.empty(); }
  bool HasWork() const ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_) { return !piece_.empty() || closed_; }

  AtomicFile file_;
  const Flush flush_;
  const std::stop_token stop_;
  int64_t size_ = 0;
  bool direct_ = false;  // Writes past the cache, of whole aligned blocks, by way of `staging_`.
  std::unique_ptr<char, decltype(&std::free)> staging_{nullptr, &std::free};
  size_t staged_ = 0;
  Sha256 hash_;  // The thread's while there is a piece, else the caller's.
  absl::Mutex mutex_;
  std::string_view piece_ ABSL_GUARDED_BY(mutex_);  // Until it is hashed.
  bool closed_ ABSL_GUARDED_BY(mutex_) = false;
  std::thread thread_;
};

}  // namespace gpipe

#endif  // GPIPE_COMMON_ARTIFACTS_HASHING_FILE_H_
