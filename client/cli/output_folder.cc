#include "client/cli/output_folder.h"

#include <algorithm>
#include <string>
#include <utility>

#include "absl/strings/str_cat.h"
#include "client/api/results.h"
#include "common/file.h"
#include "common/safetensors/shard_names.h"

namespace gpipe::client {
namespace {

namespace fs = std::filesystem;

constexpr const char* kResults[] = {"job.json",          "metrics.jsonl",       "evaluation.jsonl",
                                    "model.safetensors", "outputs.safetensors", "checkpoints"};

bool HoldsResults(const fs::path& folder) {
  const auto is_there = [&](const char* name) {
    std::error_code error;
    return fs::exists(folder / name, error);
  };
  return std::ranges::any_of(kResults, is_there);
}

absl::Status Remove(const fs::path& path) {
  std::error_code error;
  fs::remove_all(path, error);
  return error ? ErrnoStatus(error.value(), "cannot remove", path) : absl::OkStatus();
}

}  // namespace

OutputFolder::OutputFolder(fs::path path, bool continues, bool overwrite, bool made)
    : path_(std::move(path)), continues_(continues), overwrite_(overwrite), made_(made) {}

OutputFolder::OutputFolder(OutputFolder&& other) noexcept
    : path_(std::move(other.path_)),
      continues_(other.continues_),
      overwrite_(other.overwrite_),
      made_(std::exchange(other.made_, false)) {}

OutputFolder::~OutputFolder() {
  std::error_code ignored;
  if (made_) fs::remove(path_, ignored);  // Fails, as it should, when there is something in it.
}

absl::StatusOr<OutputFolder> OutputFolder::Claim(const fs::path& path, const fs::path& resume, bool overwrite) {
  std::error_code error;
  const bool made = !fs::exists(path, error);
  if (const absl::Status usable = PrepareFolder(path); !usable.ok()) {
    return absl::InvalidArgumentError(absl::StrCat("--output: ", usable.message()));
  }
  const bool continues = !resume.empty() && fs::equivalent(resume, path, error);
  if (continues || overwrite || !HoldsResults(path))
    return OutputFolder(path, continues, overwrite && !continues, made);
  return absl::InvalidArgumentError(absl::StrCat("--output: ", path.string(),
                                                 " holds the results of an earlier run: go on with it by --resume ",
                                                 path.string(), ", replace it by --overwrite, or name another folder"));
}

absl::Status OutputFolder::Clear() const {
  if (!overwrite_) return absl::OkStatus();
  absl::Status status;
  for (const char* name : kResults) status.Update(Remove(path_ / name));
  std::error_code error;
  for (const fs::directory_entry& entry : fs::directory_iterator(path_, error)) {
    const std::string name = entry.path().filename().string();
    if (safetensors::BelongsTo("model", name)) status.Update(Remove(entry.path()));
  }
  return status;
}

}  // namespace gpipe::client
