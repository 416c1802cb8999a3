#include "worker/data/shared_files.h"

#include <sys/stat.h>

#include <cerrno>
#include <system_error>

#include "absl/strings/str_cat.h"
#include "absl/time/time.h"
#include "common/file.h"
#include "common/status_macros.h"
#include "worker/data/file_range.h"

namespace gpipe::worker {
namespace {

constexpr int64_t kNanosPerSecond = 1'000'000'000;

// Some file systems keep whole seconds only.
bool SameTime(int64_t a, int64_t b) {
  if (a % kNanosPerSecond == 0 || b % kNanosPerSecond == 0) return a / kNanosPerSecond == b / kNanosPerSecond;
  return a == b;
}

std::string Describe(const v1::ArtifactRef& ref) {
  const absl::Time changed = absl::FromUnixNanos(ref.modified_nanos());
  return absl::StrCat(ref.size(), " bytes, changed at ",
                      absl::FormatTime("%Y-%m-%d %H:%M:%E*S UTC", changed, absl::UTCTimeZone()));
}

}  // namespace

std::filesystem::path SharedFiles::Locate(std::string_view shared_path) const {
  // `/a/../../b` is `/b`: no `..` is left that could lead out.
  return root_ / (std::filesystem::path("/") / shared_path).lexically_normal().relative_path();
}

std::string SharedFiles::prefix() const { return root_ == "/" ? "" : root_.string(); }

absl::StatusOr<v1::ArtifactRef> SharedFiles::Describe(const std::string& shared_path) const {
  const std::filesystem::path path = Locate(shared_path);
  struct stat info{};
  if (::stat(path.c_str(), &info) != 0) return ErrnoStatus(errno, "cannot read", path);
  if (!S_ISREG(info.st_mode)) return absl::NotFoundError(absl::StrCat(path.string(), " is not a file"));
  v1::ArtifactRef ref;
  ref.set_shared_path(shared_path);
  ref.set_size(info.st_size);
  ref.set_modified_nanos(info.st_mtim.tv_sec * kNanosPerSecond + info.st_mtim.tv_nsec);
  return ref;
}

absl::Status SharedFiles::Check(const v1::ArtifactRef& ref) const {
  const absl::StatusOr<v1::ArtifactRef> here = Describe(ref.shared_path());
  if (!here.ok()) {
    return absl::FailedPreconditionError(
        absl::StrCat("shared:", ref.shared_path(), " is not the same on every worker: here ", here.status().message()));
  }
  if (here->size() == ref.size() && SameTime(here->modified_nanos(), ref.modified_nanos())) return absl::OkStatus();
  return absl::FailedPreconditionError(absl::StrCat("shared:", ref.shared_path(),
                                                    " is not the same on every worker: ", worker::Describe(*here),
                                                    " here; ", worker::Describe(ref), " when the job was checked"));
}

absl::StatusOr<std::optional<std::filesystem::path>> SharedArtifacts::Find(const v1::ArtifactRef& ref) {
  if (ref.shared_path().empty()) return artifacts_.Find(ref);
  return shared_.Locate(ref.shared_path());
}

absl::Status SharedArtifacts::Download(const v1::ArtifactRef& ref, const std::filesystem::path& path) {
  if (ref.shared_path().empty()) return artifacts_.Download(ref, path);
  std::error_code error;
  std::filesystem::create_symlink(shared_.Locate(ref.shared_path()), path, error);
  return error ? ErrnoStatus(error.value(), "cannot link", path) : absl::OkStatus();
}

absl::Status SharedArtifacts::Read(const v1::ArtifactRef& ref, int64_t offset, absl::Span<char> data) {
  if (ref.shared_path().empty()) return artifacts_.Read(ref, offset, data);
  return ReadFileRange(shared_.Locate(ref.shared_path()), offset, data);
}

}  // namespace gpipe::worker
