#ifndef GPIPE_WORKER_DATA_ARTIFACTS_H_
#define GPIPE_WORKER_DATA_ARTIFACTS_H_

#include <cstdint>
#include <filesystem>
#include <functional>
#include <optional>
#include <stop_token>

#include "absl/status/statusor.h"
#include "absl/types/span.h"
#include "gpipe/v1/pipeline_service.pb.h"

namespace gpipe::worker {

// Files by content, at the orchestrator. Blocking; one thread at a time.
class Artifacts {
 public:
  virtual ~Artifacts() = default;

  // From now on transfers end with CANCELLED soon after `stop` is stopped, and `on_bytes` is told, on the thread that
  // waits, how many bytes more have come; null: nobody wants to know.
  virtual void Attend(std::stop_token /*stop*/, std::function<void(int64_t bytes)> /*on_bytes*/) {}

  // Sends the file unless it is there already.
  virtual absl::StatusOr<v1::ArtifactRef> Upload(const std::filesystem::path& path) = 0;

  // Sends a part of a model or checkpoint. DATA_LOSS: it is not what `ref` says.
  virtual absl::Status UploadPart(const v1::PartOf& of, const v1::ArtifactRef& ref,
                                  const std::filesystem::path& path) = 0;

  // The orchestrator's folder, where this worker may write to it (common/artifacts/local_store.h); none otherwise.
  virtual std::optional<std::filesystem::path> WritableFolder() { return std::nullopt; }

  // Where the content is on this machine, to be read only and not to be kept; none when it must be fetched.
  // FAILED_PRECONDITION names a user's file that is not what it was when it was submitted.
  virtual absl::StatusOr<std::optional<std::filesystem::path>> Find(const v1::ArtifactRef& ref) = 0;

  // Fetches into `path`, whose folder exists; the content is what `ref` says, or it is DATA_LOSS.
  virtual absl::Status Download(const v1::ArtifactRef& ref, const std::filesystem::path& path) = 0;

  // Fills `data` with the bytes of the file from offset on; nothing but their number is checked.
  virtual absl::Status Read(const v1::ArtifactRef& ref, int64_t offset, absl::Span<char> data) = 0;
};

}  // namespace gpipe::worker

#endif  // GPIPE_WORKER_DATA_ARTIFACTS_H_
