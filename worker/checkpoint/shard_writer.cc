#include "worker/checkpoint/shard_writer.h"

#include <c10/cuda/CUDAStream.h>

#include <algorithm>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <system_error>
#include <thread>
#include <utility>

#include "absl/base/thread_annotations.h"
#include "absl/cleanup/cleanup.h"
#include "absl/strings/str_cat.h"
#include "absl/synchronization/mutex.h"
#include "absl/types/span.h"
#include "common/artifacts/disk_room.h"
#include "common/artifacts/hashing_file.h"
#include "common/artifacts/parts.h"
#include "common/file.h"
#include "common/logging.h"
#include "common/random_id.h"
#include "common/status_macros.h"
#include "worker/data/tensor_writer.h"
#include "worker/torch_status.h"

namespace gpipe::worker {
namespace {

namespace fs = std::filesystem;
using Shard = absl::Span<const NamedTensor>;

constexpr size_t kMostThreads = 3;

int64_t BytesOf(const NamedTensor& named) { return static_cast<int64_t>(named.tensor.nbytes()); }

// At least one, which may have no tensors.
std::vector<Shard> Split(const std::vector<NamedTensor>& tensors, int64_t max_bytes) {
  std::vector<Shard> shards;
  size_t begin = 0;
  int64_t bytes = 0;
  for (size_t i = 0; i < tensors.size(); ++i) {
    if (i > begin && bytes + BytesOf(tensors[i]) > max_bytes) {
      shards.emplace_back(&tensors[begin], i - begin);
      begin = i;
      bytes = 0;
    }
    bytes += BytesOf(tensors[i]);
  }
  shards.push_back(Shard(tensors).subspan(begin));
  return shards;
}

absl::Status WaitForDevice(const std::vector<NamedTensor>& tensors) {
  return CatchTorch([&] {
    const auto on_device = std::ranges::find_if(tensors, [](const auto& named) { return named.tensor.is_cuda(); });
    if (on_device == tensors.end()) return absl::OkStatus();
    c10::cuda::getCurrentCUDAStream(on_device->tensor.device().index()).synchronize();
    return absl::OkStatus();
  });
}

absl::StatusOr<v1::ArtifactRef> Write(Shard shard, const fs::path& path, HashingFile::Flush flush,
                                      const std::stop_token& stop) {
  GPIPE_ASSIGN_OR_RETURN(const std::unique_ptr<HashingFile> file, HashingFile::Create(path, flush, stop));
  GPIPE_RETURN_IF_ERROR(WriteTensors(shard, [&file](std::string_view bytes) { return file->Append(bytes); }));
  return file->Finish();
}

absl::StatusOr<v1::ArtifactRef> Upload(Shard shard, const ShardOptions& options, Artifacts& artifacts) {
  const fs::path path = options.scratch / absl::StrCat("shard-", RandomId());
  const auto remover = absl::MakeCleanup([&path] {
    std::error_code ignored;
    fs::remove(path, ignored);
  });
  GPIPE_ASSIGN_OR_RETURN(v1::ArtifactRef ref, Write(shard, path, HashingFile::Flush::kLate, options.stop));
  GPIPE_RETURN_IF_ERROR(artifacts.UploadPart(options.part_of, ref, path));
  return ref;
}

// Where several files are needed the orchestrator is going to keep them: then they are on the disk when they are told.
absl::StatusOr<v1::ArtifactRef> Leave(Shard shard, bool kept, const fs::path& folder, const std::stop_token& stop) {
  const fs::path path = folder / absl::StrCat("shard-", RandomId());
  const auto flush = kept ? HashingFile::Flush::kEarly : HashingFile::Flush::kLate;
  GPIPE_ASSIGN_OR_RETURN(v1::ArtifactRef ref, Write(shard, path, flush, stop));
  if (kept) GPIPE_RETURN_IF_ERROR(SyncPath(path));
  std::error_code error;
  fs::rename(path, folder / ref.sha256(), error);
  if (error) return ErrnoStatus(error.value(), "cannot rename", path);
  return ref;
}

// Leaves the shards in a folder, a few at a time.
class ParallelLeave {
 public:
  ParallelLeave(const std::vector<Shard>& shards, const ShardOptions& options)
      : shards_(shards),
        folder_(PartFolder(options.artifacts, options.part_of)),
        stop_on_abort_(options.stop, [this] { stop_.request_stop(); }) {
    refs_.resize(shards.size());
  }

  absl::StatusOr<Refs> Run() {
    std::error_code error;
    fs::create_directories(folder_, error);
    if (error) return ErrnoStatus(error.value(), "cannot create", folder_);
    {
      std::vector<std::jthread> threads;
      for (size_t i = 0; i < std::min(shards_.size(), kMostThreads); ++i) threads.emplace_back([this] { LeaveSome(); });
    }
    absl::MutexLock lock(&mutex_);
    GPIPE_RETURN_IF_ERROR(failure_);
    return Refs(refs_.begin(), refs_.end());
  }

 private:
  void LeaveSome() {
    SetThreadName("shard");
    while (const std::optional<size_t> shard = Next()) {
      End(*shard, Leave(shards_[*shard], shards_.size() > 1, folder_, stop_.get_token()));
    }
  }

  std::optional<size_t> Next() {
    absl::MutexLock lock(&mutex_);
    return failure_.ok() && next_ < shards_.size() ? std::optional(next_++) : std::nullopt;
  }

  void End(size_t shard, absl::StatusOr<v1::ArtifactRef> ref) {
    if (!ref.ok()) stop_.request_stop();
    absl::MutexLock lock(&mutex_);
    if (ref.ok()) {
      refs_[shard] = *std::move(ref);
    } else if (failure_.ok()) {
      failure_ = ref.status();
    }
  }

  const std::vector<Shard>& shards_;
  const fs::path folder_;
  std::stop_source stop_;  // The first failure ends the others.
  const std::stop_callback<std::function<void()>> stop_on_abort_;
  absl::Mutex mutex_;
  std::vector<v1::ArtifactRef> refs_ ABSL_GUARDED_BY(mutex_);
  size_t next_ ABSL_GUARDED_BY(mutex_) = 0;
  absl::Status failure_ ABSL_GUARDED_BY(mutex_);
};

int64_t BytesOf(const std::vector<NamedTensor>& tensors) {
  int64_t bytes = 0;
  for (const NamedTensor& named : tensors) bytes += BytesOf(named);
  return bytes;
}

}  // namespace

absl::StatusOr<Refs> WriteShards(const std::vector<NamedTensor>& tensors, const ShardOptions& options,
                                 Artifacts& artifacts) {
  GPIPE_RETURN_IF_ERROR(WaitForDevice(tensors));
  const std::vector<Shard> shards = Split(tensors, options.max_shard_bytes);
  if (!options.artifacts.empty()) {
    GPIPE_RETURN_IF_ERROR(CheckRoom(options.artifacts, BytesOf(tensors)));
    return ParallelLeave(shards, options).Run();
  }
  Refs refs;
  for (const Shard& shard : shards) {
    GPIPE_ASSIGN_OR_RETURN(*refs.Add(), Upload(shard, options, artifacts));
  }
  return refs;
}

}  // namespace gpipe::worker
