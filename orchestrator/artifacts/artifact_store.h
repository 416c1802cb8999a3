#ifndef GPIPE_ORCHESTRATOR_ARTIFACTS_ARTIFACT_STORE_H_
#define GPIPE_ORCHESTRATOR_ARTIFACTS_ARTIFACT_STORE_H_

#include <atomic>
#include <cstdint>
#include <filesystem>
#include <map>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/synchronization/mutex.h"
#include "absl/time/time.h"
#include "common/clock.h"
#include "common/file.h"
#include "common/sha256.h"
#include "gpipe/v1/pipeline_service.pb.h"

namespace gpipe::orchestrator {

// Files by content: FOLDER/ab/abcdef... for SHA-256 abcdef.... A file appears whole, checked and synced, or not at all,
// and never changes afterwards. Any thread may call any method. One process at a time: the folder is guarded by the
// lock of the Store (orchestrator/jobs/store.h), so open that one first.
//
// Errors: INVALID_ARGUMENT for a digest that is not 64 lower-case hexadecimal digits or a negative size; NOT_FOUND for
// content that is not here; RESOURCE_EXHAUSTED for a full disk or a file over the limit.
//
// Content stays until it is removed (scheduling/housekeeper.h): when no job has it any more, unless somebody has
// claimed it, by asking for it or giving it, to submit a job with it.
class ArtifactStore {
 public:
  // Enough to submit a job after its files were given; then they are what an abandoned upload has left.
  static constexpr absl::Duration kClaimLasts = absl::Hours(24);

  struct Options {
    int64_t max_artifact_bytes = int64_t{1} << 40;
    const Clock* clock = nullptr;  // Of the claims; null: one of its own. Outlives the store.
  };

  // Creates the folder, and removes what an earlier process left half-written.
  static absl::StatusOr<std::unique_ptr<ArtifactStore>> Open(const std::filesystem::path& folder,
                                                             const Options& options);
  ArtifactStore(const ArtifactStore&) = delete;
  ArtifactStore& operator=(const ArtifactStore&) = delete;

  // A file on its way in. Destroyed without Commit, it leaves nothing. Not for use by two threads at once.
  class Writer {
   public:
    // DATA_LOSS: more bytes than announced. After an error only destruction is left.
    absl::Status Append(std::string_view data);
    // Checks size and digest, syncs, and puts the file in its place; may take as long as the disk needs.
    // DATA_LOSS: the bytes are not those announced; nothing is kept.
    absl::Status Commit();

   private:
    friend class ArtifactStore;
    Writer(v1::ArtifactRef expected, AtomicFile file, bool synced);
    v1::ArtifactRef expected_;
    AtomicFile file_;
    bool synced_;
    std::unique_ptr<Sha256> hash_;
    int64_t size_ = 0;
  };
  // Uploads of the same content may run side by side; the last to commit wins, with the same bytes.
  absl::StatusOr<Writer> Begin(const v1::ArtifactRef& expected);
  // Of a worker's part, which becomes no artifact (common/artifacts/parts.h). INVALID_ARGUMENT, too: it names no job.
  absl::StatusOr<Writer> BeginPart(const v1::PartOf& of, const v1::ArtifactRef& expected);

  bool Has(const v1::ArtifactRef& ref) const;
  // Where the content lies, to be read only: here; or at a user of a cluster that is only his
  // (common/artifacts/local_store.h, whose FAILED_PRECONDITION names his file). What is open when it is removed can be
  // read on.
  absl::StatusOr<std::filesystem::path> Path(const v1::ArtifactRef& ref) const;
  // The same; and it is claimed, whether it is here or not.
  absl::StatusOr<std::filesystem::path> Claim(const v1::ArtifactRef& ref);

  // While there is one, nothing is removed; what should have been goes with a later look at what is Unclaimed. Any
  // thread.
  class Keep {
   public:
    explicit Keep(ArtifactStore* store);
    ~Keep();
    Keep(const Keep&) = delete;
    Keep& operator=(const Keep&) = delete;

   private:
    ArtifactStore* const store_;
  };

  // Removes content, unless it was claimed after `when` (of the clock). What cannot be removed stays, and is logged.
  void Remove(const v1::ArtifactRef& ref, absl::Time when);
  // Reads content all through, and removes it when it is not what it was: then it can be given again. True: removed.
  // As slow as the disk.
  bool RemoveIfDamaged(const v1::ArtifactRef& ref);
  // What has been here, unchanged and unclaimed, for longer than claims last.
  std::vector<v1::ArtifactRef> Unclaimed() const;
  absl::Time Now() const { return clock_->Now(); }

  // Syncs a file of ours, of which `ref` is known to be true, and moves it in; `path` is gone afterwards. When this
  // fails the file is still there.
  absl::Status Adopt(const std::filesystem::path& path, const v1::ArtifactRef& ref);
  // Stores some bytes (a manifest, metrics.jsonl, job.json).
  absl::StatusOr<v1::ArtifactRef> Put(std::string_view content);
  // A name nobody else gets, for a file to be made and adopted: on the same file system, and removed at the next
  // start if forgotten. The file is not created.
  std::filesystem::path TemporaryPath();
  const std::filesystem::path& folder() const { return folder_; }

 private:
  ArtifactStore(std::filesystem::path folder, const Options& options);
  absl::Status CheckSize(int64_t size) const;
  std::filesystem::path PathOf(std::string_view sha256) const;
  // The folder of that digest, made if it is not there.
  absl::Status MakeFolderOf(std::string_view sha256) const;
  absl::Status CopyIn(const std::filesystem::path& path, const v1::ArtifactRef& ref);
  absl::StatusOr<Writer> Open(const std::filesystem::path& path, const v1::ArtifactRef& expected, bool synced);
  void Note(const std::string& sha256) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  bool IsClaimed(const std::string& sha256, absl::Time after) const ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);

  const std::filesystem::path folder_;
  const Options options_;
  const SteadyClock own_clock_;
  const Clock* const clock_;
  // Held while content is looked up to be claimed, and while it is removed: whoever is told that it is here can count
  // on it.
  mutable absl::Mutex mutex_;
  std::map<std::string, absl::Time> claims_ ABSL_GUARDED_BY(mutex_);  // By sha256: the last.
  int keeps_ ABSL_GUARDED_BY(mutex_) = 0;
  std::atomic<uint64_t> next_temporary_ = 0;
};

}  // namespace gpipe::orchestrator

#endif  // GPIPE_ORCHESTRATOR_ARTIFACTS_ARTIFACT_STORE_H_
