#include "worker/data/client_exchange.h"

#include <ATen/ATen.h>

#include <optional>
#include <system_error>
#include <utility>

#include "absl/cleanup/cleanup.h"
#include "absl/strings/str_cat.h"
#include "common/spec/client_data.h"
#include "common/status_macros.h"
#include "worker/data/tensor_file.h"
#include "worker/torch_status.h"

namespace gpipe::worker {
namespace fs = std::filesystem;
namespace {

void Remove(const fs::path& path) {
  std::error_code ignored;
  fs::remove(path, ignored);
}

}  // namespace

absl::StatusOr<Values> ClientExchange::Read(const v1::ArtifactRef& file, const std::vector<std::string>& names,
                                            c10::Device device) {
  GPIPE_ASSIGN_OR_RETURN(const fs::path path, Locate(file));
  const absl::Cleanup remove = [&] {
    if (path == Fetched()) Remove(path);
  };
  GPIPE_ASSIGN_OR_RETURN(const std::unique_ptr<TensorFile> tensors, TensorFile::Open(path));
  Values values;
  for (const std::string& name : names) {
    if (!tensors->header().tensors.contains(name)) continue;
    GPIPE_ASSIGN_OR_RETURN(const at::Tensor mapped, tensors->Get(name));
    GPIPE_RETURN_IF_ERROR(CatchTorch([&] {
      values[name] = mapped.to(device, /*non_blocking=*/false, /*copy=*/true);
      return absl::OkStatus();
    }));
  }
  return values;
}

// A client names files, and must not make a worker read others than its own. What is fetched is read once, and is not
// for the cache, in which it would stay until the end of the attempt.
absl::StatusOr<fs::path> ClientExchange::Locate(const v1::ArtifactRef& file) {
  if (file.shared_path().empty()) {
    GPIPE_ASSIGN_OR_RETURN(std::optional<fs::path> here, artifacts_.Find(file));
    if (here) return *std::move(here);
    GPIPE_RETURN_IF_ERROR(artifacts_.Download(file, Fetched()));
    return Fetched();
  }
  if (!spec::IsInExchangeFolder(options_.folder, file.shared_path())) {
    return absl::InvalidArgumentError(absl::StrCat(file.shared_path(), " is not in the job's exchange folder"));
  }
  return options_.shared.Locate(file.shared_path());
}

absl::StatusOr<v1::ArtifactRef> ClientExchange::Write(int64_t round, const std::vector<NamedTensor>& tensors) {
  const std::string name = absl::StrCat(options_.job, ".", round, ".", options_.worker, ".safetensors");
  if (!options_.folder.empty()) {
    const std::string shared = (fs::path(options_.folder) / name).string();
    GPIPE_RETURN_IF_ERROR(WriteTensorFile(options_.shared.Locate(shared), tensors));
    return options_.shared.Describe(shared);
  }
  const fs::path path = options_.scratch / name;
  const absl::Cleanup remove = [&path] { Remove(path); };
  GPIPE_RETURN_IF_ERROR(WriteTensorFile(path, tensors));
  return artifacts_.Upload(path);
}

}  // namespace gpipe::worker
