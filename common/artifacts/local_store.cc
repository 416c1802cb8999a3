#include "common/artifacts/local_store.h"

#include <cerrno>
#include <sstream>
#include <string>
#include <system_error>

#include "absl/strings/str_cat.h"
#include "common/artifacts/layout.h"
#include "common/error_reason.h"
#include "common/file.h"
#include "common/sha256.h"
#include "common/status_macros.h"

namespace gpipe {
namespace {

namespace fs = std::filesystem;

constexpr char kSuffix[] = ".ref";
constexpr char kFirstLine[] = "gpipe reference 1";
constexpr size_t kMostReferenceBytes = 1 << 16;

struct Reference {
  fs::path path;
  FileStamp stamp;
};

absl::StatusOr<Reference> ReadReference(const fs::path& path) {
  GPIPE_ASSIGN_OR_RETURN(const std::string content, ReadFile(path, kMostReferenceBytes));
  std::istringstream text(content);
  Reference reference;
  std::string first;
  if (!std::getline(text, first) || first != kFirstLine || !(text >> reference.stamp) || text.get() != ' ') {
    return absl::DataLossError(absl::StrCat(path.string(), " is damaged"));
  }
  reference.path = content.substr(static_cast<size_t>(text.tellg()));
  return reference;
}

absl::StatusOr<fs::path> Follow(const fs::path& path) {
  GPIPE_ASSIGN_OR_RETURN(Reference reference, ReadReference(path));
  const absl::StatusOr<FileStamp> now = StampOf(reference.path);
  if (now.ok() && *now == reference.stamp) return std::move(reference.path);
  if (now.ok()) {
    return absl::FailedPreconditionError(absl::StrCat(reference.path.string(), " was changed after it was submitted"));
  }
  return absl::FailedPreconditionError(absl::StrCat(now.status().message(), "; it was there when it was submitted"));
}

fs::path ReferencePath(const fs::path& folder, const std::string& sha256) {
  return ArtifactPath(folder, sha256).concat(kSuffix);
}

}  // namespace

absl::StatusOr<fs::path> FindArtifact(const fs::path& folder, const v1::ArtifactRef& ref) {
  if (!IsSha256(ref.sha256())) {
    return absl::InvalidArgumentError("an artifact's sha256 is not 64 lower-case hexadecimal digits");
  }
  fs::path path = ArtifactPath(folder, ref.sha256());
  std::error_code error;
  const auto size = fs::file_size(path, error);
  if (!error && static_cast<int64_t>(size) == ref.size()) return path;
  absl::StatusOr<fs::path> elsewhere = Follow(ReferencePath(folder, ref.sha256()));
  if (!absl::IsNotFound(elsewhere.status())) return elsewhere;
  return WithReason(absl::NotFoundError(absl::StrCat("no artifact ", ref.sha256(), " of ", ref.size(), " bytes")),
                    reason::kArtifactNotFound);
}

absl::Status CheckReferences(const fs::path& folder) {
  std::error_code error;
  fs::recursive_directory_iterator entry(folder, error);
  for (; !error && entry != fs::recursive_directory_iterator(); entry.increment(error)) {
    if (entry->path().extension() == kSuffix) GPIPE_RETURN_IF_ERROR(Follow(entry->path()).status());
  }
  return error ? ErrnoStatus(error.value(), "cannot list", folder) : absl::OkStatus();
}

absl::Status ReferToFile(const fs::path& folder, const HashedFile& file, const fs::path& path) {
  std::error_code error;
  const fs::path reference = ReferencePath(folder, file.ref.sha256());
  fs::create_directories(reference.parent_path(), error);
  if (error) return ErrnoStatus(error.value(), "cannot create", reference.parent_path());
  const fs::path absolute = fs::absolute(path, error);
  if (error) return ErrnoStatus(error.value(), "cannot find", path);
  GPIPE_ASSIGN_OR_RETURN(AtomicFile record, AtomicFile::Create(reference));
  GPIPE_RETURN_IF_ERROR(record.Append(absl::StrCat(kFirstLine, "\n", ToText(file.stamp), " ", absolute.string())));
  return record.Publish();
}

}  // namespace gpipe
