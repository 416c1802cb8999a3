#ifndef GPIPE_ORCHESTRATOR_ACCESS_TOKEN_FILE_H_
#define GPIPE_ORCHESTRATOR_ACCESS_TOKEN_FILE_H_

#include <filesystem>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/status/statusor.h"
#include "absl/synchronization/mutex.h"
#include "absl/time/time.h"
#include "common/artifacts/file_stamp.h"
#include "orchestrator/access/roles.h"

namespace gpipe::orchestrator {

// Who may call by a bearer token: a file of lines `role name token`; empty lines and those that begin with # are passed
// over. A change of the file counts from the next call on; one that cannot be read leaves things as they were, and is
// logged. Only hashes of the tokens are in memory. Any thread may call any method.
class TokenFile {
 public:
  // Shorter ones could be guessed.
  static constexpr size_t kLeastTokenBytes = 16;
  static constexpr size_t kMaxFileBytes = 1 << 20;

  struct Owner {
    std::string name;
    Role role = Role::kNone;
  };

  // INVALID_ARGUMENT names --tokens-file, the file and the line, and shows no token.
  static absl::StatusOr<std::unique_ptr<TokenFile>> Open(const std::filesystem::path& path);

  // Takes as long for a wrong token as for a right one.
  std::optional<Owner> Find(std::string_view token);

 private:
  struct Entry {
    Owner owner;
    std::string digest;
  };

  explicit TokenFile(std::filesystem::path path) : path_(std::move(path)) {}
  static absl::StatusOr<Entry> ParseLine(std::string_view line);
  absl::StatusOr<std::vector<Entry>> Read() const;
  absl::Status ReadIfChanged() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);

  const std::filesystem::path path_;
  absl::Mutex mutex_;
  FileStamp stamp_ ABSL_GUARDED_BY(mutex_);  // Of what was last read, well or not.
  bool recent_ ABSL_GUARDED_BY(mutex_) = true;
  std::vector<Entry> entries_ ABSL_GUARDED_BY(mutex_);
};

}  // namespace gpipe::orchestrator

#endif  // GPIPE_ORCHESTRATOR_ACCESS_TOKEN_FILE_H_
