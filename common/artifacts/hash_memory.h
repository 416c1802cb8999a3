#ifndef GPIPE_COMMON_ARTIFACTS_HASH_MEMORY_H_
#define GPIPE_COMMON_ARTIFACTS_HASH_MEMORY_H_

#include <filesystem>
#include <map>
#include <optional>
#include <string>

#include "absl/status/status.h"
#include "absl/time/time.h"
#include "common/artifacts/file_stamp.h"

namespace gpipe {

// The SHA-256 of files that were read before, so that a file is hashed once: by path, and good only for the stamp that
// the file had then. Kept in a small file of the user's; one that is not there, of another version or damaged has
// nothing, or less, to say, which costs reading again. Two programs that save at once: one of them is heard.
//
// Not for use by two threads at once.
class HashMemory {
 public:
  // `$XDG_CACHE_HOME/gpipe/hashes`, or under ~/.cache. Empty when the user has neither.
  static std::filesystem::path DefaultFile();

  // Reads the file. Empty: remembers for as long as the object is there.
  explicit HashMemory(std::filesystem::path file);
  // Saves what is new; a failure only costs reading again.
  ~HashMemory();
  HashMemory(const HashMemory&) = delete;
  HashMemory& operator=(const HashMemory&) = delete;

  std::optional<std::string> Find(const std::filesystem::path& path, const FileStamp& stamp) const;
  // Nothing is kept of a file that was changed just now (IsRecent), and at most 10,000 files, the last used ones.
  void Remember(const std::filesystem::path& path, const FileStamp& stamp, const std::string& sha256, absl::Time now);
  absl::Status Save();

 private:
  struct Entry {
    FileStamp stamp;
    std::string sha256;
    mutable int64_t used = 0;  // Unix seconds.
  };

  void Load();
  void LoadLine(const std::string& line);
  void Forget();

  const std::filesystem::path file_;
  std::map<std::string, Entry> entries_;  // By absolute path.
  mutable bool changed_ = false;
};

}  // namespace gpipe

#endif  // GPIPE_COMMON_ARTIFACTS_HASH_MEMORY_H_
