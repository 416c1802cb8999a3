#ifndef GPIPE_WORKER_DATA_SHARED_FILES_H_
#define GPIPE_WORKER_DATA_SHARED_FILES_H_

#include <filesystem>
#include <functional>
#include <optional>
#include <stop_token>
#include <string>
#include <string_view>
#include <utility>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "gpipe/v1/worker_session.pb.h"
#include "worker/data/artifacts.h"

namespace gpipe::worker {

// The files that every worker sees, `shared:` in a spec, as this worker sees them. Any thread may call any method.
class SharedFiles {
 public:
  // Their paths are looked for below `root`; `/` is what users expect.
  explicit SharedFiles(std::filesystem::path root = "/") : root_(std::move(root)) {}

  // Where a shared path (`/data/x.bin`) lies here; never outside of the root, but for links.
  std::filesystem::path Locate(std::string_view shared_path) const;

  // What stands in front of a shared path to find it here.
  std::string prefix() const;

  // What the file is recognised by on every worker: its size, and when it was changed. NOT_FOUND: it is not there.
  absl::StatusOr<v1::ArtifactRef> Describe(const std::string& shared_path) const;

  // FAILED_PRECONDITION, and names the file: it is not here, or another one than `ref`, which another worker described.
  absl::Status Check(const v1::ArtifactRef& ref) const;

 private:
  const std::filesystem::path root_;
};

// Artifacts of which some are shared files: those are read where they are, the others from `artifacts`.
class SharedArtifacts : public Artifacts {
 public:
  // `artifacts` must outlive this.
  SharedArtifacts(Artifacts& artifacts, SharedFiles shared) : artifacts_(artifacts), shared_(std::move(shared)) {}

  void Attend(std::stop_token stop, std::function<void(int64_t bytes)> on_bytes) override {
    artifacts_.Attend(std::move(stop), std::move(on_bytes));
  }
  absl::StatusOr<v1::ArtifactRef> Upload(const std::filesystem::path& path) override { return artifacts_.Upload(path); }
  absl::Status UploadPart(const v1::PartOf& of, const v1::ArtifactRef& ref,
                          const std::filesystem::path& path) override {
    return artifacts_.UploadPart(of, ref, path);
  }
  std::optional<std::filesystem::path> WritableFolder() override { return artifacts_.WritableFolder(); }
  absl::StatusOr<std::optional<std::filesystem::path>> Find(const v1::ArtifactRef& ref) override;
  // A shared file is linked to, not copied.
  absl::Status Download(const v1::ArtifactRef& ref, const std::filesystem::path& path) override;
  absl::Status Read(const v1::ArtifactRef& ref, int64_t offset, absl::Span<char> data) override;

 private:
  Artifacts& artifacts_;
  const SharedFiles shared_;
};

}  // namespace gpipe::worker

#endif  // GPIPE_WORKER_DATA_SHARED_FILES_H_
