#include "worker/data/client_exchange.h"

#include <ATen/ATen.h>

#include <system_error>
#include <utility>

#include "absl/cleanup/cleanup.h"
#include "absl/strings/str_cat.h"
#include "common/file.h"
#include "common/status_macros.h"
#include "worker/data/tensor_file.h"
#include "worker/data/tensor_writer.h"
#include "worker/torch_status.h"

namespace gpipe::worker {
namespace {

namespace fs = std::filesystem;

// It is read at once, and nobody needs it after a power cut.
absl::Status WriteUnsynced(const fs::path& path, const std::vector<NamedTensor>& tensors) {
  GPIPE_ASSIGN_OR_RETURN(AtomicFile file, AtomicFile::Create(path));
  GPIPE_RETURN_IF_ERROR(WriteTensors(tensors, [&file](std::string_view bytes) { return file.Append(bytes); }));
  return file.Publish();
}

}  // namespace

absl::StatusOr<Values> ClientExchange::Read(const v1::ArtifactRef& file, const std::vector<std::string>& names) {
  GPIPE_ASSIGN_OR_RETURN(const fs::path path, Locate(file));
  GPIPE_ASSIGN_OR_RETURN(const std::unique_ptr<TensorFile> tensors, TensorFile::Open(path));
  Values values;
  for (const std::string& name : names) {
    if (!tensors->header().tensors.contains(name)) continue;
    GPIPE_ASSIGN_OR_RETURN(const at::Tensor mapped, tensors->Get(name));
    GPIPE_RETURN_IF_ERROR(CatchTorch([&] {
      values[name] = mapped.to(options_.device, /*non_blocking=*/false, /*copy=*/true);
      return absl::OkStatus();
    }));
  }
  return values;
}

// A client names files, and must not make a worker read others than its own.
absl::StatusOr<fs::path> ClientExchange::Locate(const v1::ArtifactRef& file) {
  if (file.shared_path().empty()) return cache_.Fetch(file);
  const fs::path path(file.shared_path());
  if (options_.folder.empty() || path.parent_path() != options_.folder || path != path.lexically_normal()) {
    return absl::InvalidArgumentError(absl::StrCat(path.string(), " is not in the job's exchange folder"));
  }
  return options_.shared.Locate(file.shared_path());
}

absl::StatusOr<v1::ArtifactRef> ClientExchange::Write(int64_t round, const std::vector<NamedTensor>& tensors) {
  const std::string name = absl::StrCat(options_.job, ".", round, ".", options_.worker, ".safetensors");
  if (!options_.folder.empty()) {
    const std::string shared = (fs::path(options_.folder) / name).string();
    GPIPE_RETURN_IF_ERROR(WriteUnsynced(options_.shared.Locate(shared), tensors));
    return options_.shared.Describe(shared);
  }
  const fs::path path = options_.scratch / name;
  const absl::Cleanup remove = [&path] {
    std::error_code ignored;
    fs::remove(path, ignored);
  };
  GPIPE_RETURN_IF_ERROR(WriteUnsynced(path, tensors));
  return artifacts_.Upload(path);
}

}  // namespace gpipe::worker
