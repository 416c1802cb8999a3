#include "client/api/backup.h"

#include <algorithm>
#include <fstream>
#include <memory>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "absl/strings/ascii.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "client/api/backup_target.h"
#include "common/file.h"
#include "common/printable.h"
#include "common/sha256.h"
#include "common/status_macros.h"
#include "common/string_view.h"

namespace gpipe::client {
namespace {

namespace fs = std::filesystem;

constexpr char kSums[] = "SHA256SUMS";
constexpr char kDatabase[] = "gpipe.db";
constexpr size_t kPieceBytes = 1 << 20;

// A path out of a message or a list may lead nowhere but below the folder.
absl::Status CheckPath(const std::string& path) {
  const auto plain = [](char c) { return absl::ascii_isalnum(c) || c == '.' || c == '_' || c == '-' || c == '/'; };
  const fs::path parts(path);
  const bool good = !path.empty() && path.size() <= 200 && std::ranges::all_of(path, plain) && parts.is_relative() &&
                    std::ranges::none_of(parts, [](const fs::path& part) { return part == ".." || part == "."; });
  if (good && path != kSums) return absl::OkStatus();
  return absl::DataLossError(absl::StrCat("a backup has no file '", Printable(path), "'"));
}

// Hashes and counts what goes into a target.
class BackupWriter {
 public:
  explicit BackupWriter(std::unique_ptr<BackupTarget> target) : target_(std::move(target)) {}

  absl::Status Begin(const std::string& path, int64_t size) {
    GPIPE_RETURN_IF_ERROR(EndFile());
    GPIPE_RETURN_IF_ERROR(CheckPath(path));
    if (size < 0) return absl::DataLossError(absl::StrCat(path, ": has a negative size"));
    path_ = path;
    left_ = size;
    hash_.emplace();
    ++size_.files;
    return target_->Begin(path, size);
  }
  absl::Status Append(std::string_view data) {
    if (!hash_.has_value() || static_cast<int64_t>(data.size()) > left_) {
      return absl::DataLossError(absl::StrCat("a backup's file '", path_, "' has more bytes than announced"));
    }
    left_ -= static_cast<int64_t>(data.size());
    size_.bytes += static_cast<int64_t>(data.size());
    hash_->Update(data);
    return target_->Append(data);
  }
  // The digest of the last file. DATA_LOSS: it was shorter than announced.
  absl::StatusOr<std::string> End() {
    if (left_ > 0) return absl::DataLossError(absl::StrCat("a backup's file '", path_, "' ends too early"));
    std::string digest = hash_->HexDigest();
    hash_.reset();
    return digest;
  }
  // With the list of sums as its last file.
  absl::StatusOr<BackupSize> CommitWithSums() {
    GPIPE_RETURN_IF_ERROR(EndFile());
    GPIPE_RETURN_IF_ERROR(target_->Begin(kSums, static_cast<int64_t>(sums_.size())));
    GPIPE_RETURN_IF_ERROR(target_->Append(sums_));
    return Commit();
  }
  absl::StatusOr<BackupSize> Commit() {
    GPIPE_RETURN_IF_ERROR(target_->Commit());
    return size_;
  }

 private:
  absl::Status EndFile() {
    if (!hash_.has_value()) return absl::OkStatus();
    GPIPE_ASSIGN_OR_RETURN(const std::string digest, End());
    absl::StrAppend(&sums_, digest, "  ", path_, "\n");
    return absl::OkStatus();
  }

  const std::unique_ptr<BackupTarget> target_;
  std::string path_;
  int64_t left_ = 0;
  std::optional<Sha256> hash_;  // Of the file that is being written.
  std::string sums_;
  BackupSize size_;
};

struct Sum {
  std::string sha256;
  std::string path;
};

absl::StatusOr<std::vector<Sum>> ReadSums(const fs::path& backup) {
  const absl::StatusOr<std::string> text = ReadFile(backup / kSums);
  if (!text.ok()) {
    return absl::InvalidArgumentError(absl::StrCat(backup.string(), " is no whole backup: ", text.status().message()));
  }
  std::vector<Sum> sums;
  for (const absl::string_view line : absl::StrSplit(*text, '\n', absl::SkipEmpty())) {
    const std::vector<std::string> words = absl::StrSplit(line, absl::MaxSplits("  ", 1));
    if (words.size() != 2 || !IsSha256(words[0])) {
      return absl::InvalidArgumentError(absl::StrCat((backup / kSums).string(), ": has a line that is no sum"));
    }
    GPIPE_RETURN_IF_ERROR(CheckPath(words[1]));
    sums.push_back({.sha256 = words[0], .path = words[1]});
  }
  if (std::ranges::none_of(sums, [](const Sum& sum) { return sum.path == kDatabase; })) {
    return absl::InvalidArgumentError(absl::StrCat((backup / kSums).string(), ": has no ", kDatabase));
  }
  return sums;
}

absl::Status CopyFile(const fs::path& path, const Sum& sum, BackupWriter& writer) {
  std::error_code error;
  const auto size = static_cast<int64_t>(fs::file_size(path, error));
  if (error) return absl::DataLossError(absl::StrCat("the backup lacks ", path.string()));
  std::ifstream input(path, std::ios::binary);
  GPIPE_RETURN_IF_ERROR(writer.Begin(sum.path, size));
  std::string piece(kPieceBytes, '\0');
  while (input.read(piece.data(), static_cast<std::streamsize>(piece.size())), input.gcount() > 0) {
    GPIPE_RETURN_IF_ERROR(writer.Append(std::string_view(piece.data(), input.gcount())));
  }
  GPIPE_ASSIGN_OR_RETURN(const std::string digest, writer.End());
  if (digest == sum.sha256) return absl::OkStatus();
  return absl::DataLossError(absl::StrCat(path.string(), " is not what it was: its sha256 is ", digest));
}

}  // namespace

absl::StatusOr<BackupSize> TakeBackup(ClusterClient& client, const fs::path& target, bool with_files) {
  GPIPE_ASSIGN_OR_RETURN(std::unique_ptr<BackupTarget> made,
                         target.extension() == ".tar" ? MakeTarTarget(target) : MakeFolderTarget(target));
  BackupWriter writer(std::move(made));
  v1::BackUpRequest request;
  request.set_without_files(!with_files);
  GPIPE_RETURN_IF_ERROR(client.BackUp(request, [&writer](const v1::BackUpResponse& part) {
    return part.has_file() ? writer.Begin(part.file().path(), part.file().size()) : writer.Append(part.data());
  }));
  return writer.CommitWithSums();
}

absl::StatusOr<BackupSize> RestoreBackup(const fs::path& backup, const fs::path& state_dir) {
  GPIPE_ASSIGN_OR_RETURN(const std::vector<Sum> sums, ReadSums(backup));
  GPIPE_ASSIGN_OR_RETURN(std::unique_ptr<BackupTarget> made, MakeFolderTarget(state_dir));
  BackupWriter writer(std::move(made));
  for (const Sum& sum : sums) GPIPE_RETURN_IF_ERROR(CopyFile(backup / sum.path, sum, writer));
  return writer.Commit();
}

}  // namespace gpipe::client
