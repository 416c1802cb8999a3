#ifndef GPIPE_TESTS_UNIT_WORKER_MEMORY_ARTIFACTS_H_
#define GPIPE_TESTS_UNIT_WORKER_MEMORY_ARTIFACTS_H_

#include <filesystem>
#include <map>
#include <optional>
#include <string>

#include "absl/base/thread_annotations.h"
#include "absl/synchronization/mutex.h"
#include "common/file.h"
#include "common/sha256.h"
#include "common/status_macros.h"
#include "worker/data/artifacts.h"

namespace gpipe::worker {

// Files by content, in memory. Any thread may call any method.
class MemoryArtifacts : public Artifacts {
 public:
  v1::ArtifactRef Add(const std::string& content) {
    Sha256 hash;
    hash.Update(content);
    v1::ArtifactRef ref;
    ref.set_sha256(hash.HexDigest());
    ref.set_size(static_cast<int64_t>(content.size()));
    absl::MutexLock lock(&mutex_);
    contents_[ref.sha256()] = content;
    return ref;
  }

  absl::StatusOr<v1::ArtifactRef> Upload(const std::filesystem::path& path) override {
    GPIPE_ASSIGN_OR_RETURN(const std::string content, ReadFile(path));
    return Add(content);
  }

  absl::Status UploadPart(const v1::PartOf& /*of*/, const v1::ArtifactRef& ref,
                          const std::filesystem::path& path) override {
    GPIPE_ASSIGN_OR_RETURN(const v1::ArtifactRef found, Upload(path));
    const bool same = found.sha256() == ref.sha256() && found.size() == ref.size();
    return same ? absl::OkStatus() : absl::DataLossError("the file is not what it is said to be");
  }

  // None, unless a test says so.
  std::optional<std::filesystem::path> WritableFolder() override {
    absl::MutexLock lock(&mutex_);
    return writable_;
  }
  void AllowWritingTo(const std::filesystem::path& folder) {
    absl::MutexLock lock(&mutex_);
    writable_ = folder;
  }

  // None is, unless a test says so.
  absl::StatusOr<std::optional<std::filesystem::path>> Find(const v1::ArtifactRef& ref) override {
    absl::MutexLock lock(&mutex_);
    const auto found = here_.find(ref.sha256());
    return found == here_.end() ? std::nullopt : std::optional(found->second);
  }
  void SayItIsHere(const v1::ArtifactRef& ref, const std::filesystem::path& path) {
    absl::MutexLock lock(&mutex_);
    here_[ref.sha256()] = path;
  }

  absl::Status Download(const v1::ArtifactRef& ref, const std::filesystem::path& path) override {
    absl::MutexLock lock(&mutex_);
    ++downloads_;
    const auto found = contents_.find(ref.sha256());
    if (found == contents_.end()) return absl::NotFoundError("no such content");
    return WriteFileAtomically(path, found->second);
  }

  absl::Status Read(const v1::ArtifactRef& ref, int64_t offset, absl::Span<char> data) override {
    absl::MutexLock lock(&mutex_);
    GPIPE_RETURN_IF_ERROR(lost_);
    const auto found = contents_.find(ref.sha256());
    if (found == contents_.end()) return absl::NotFoundError("no such content");
    bytes_read_ += static_cast<int64_t>(data.size());
    const size_t got = found->second.copy(data.data(), data.size(), static_cast<size_t>(offset));
    return got == data.size() ? absl::OkStatus() : absl::DataLossError("the content is shorter");
  }

  // What every later Read answers.
  void Lose(const absl::Status& status) {
    absl::MutexLock lock(&mutex_);
    lost_ = status;
  }

  int64_t bytes_read() const {
    absl::MutexLock lock(&mutex_);
    return bytes_read_;
  }

  int downloads() const {
    absl::MutexLock lock(&mutex_);
    return downloads_;
  }

 private:
  mutable absl::Mutex mutex_;
  std::map<std::string, std::string> contents_ ABSL_GUARDED_BY(mutex_);
  std::map<std::string, std::filesystem::path> here_ ABSL_GUARDED_BY(mutex_);
  std::optional<std::filesystem::path> writable_ ABSL_GUARDED_BY(mutex_);
  int downloads_ ABSL_GUARDED_BY(mutex_) = 0;
  int64_t bytes_read_ ABSL_GUARDED_BY(mutex_) = 0;
  absl::Status lost_ ABSL_GUARDED_BY(mutex_);
};

}  // namespace gpipe::worker

#endif  // GPIPE_TESTS_UNIT_WORKER_MEMORY_ARTIFACTS_H_
