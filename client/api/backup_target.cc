#include "client/api/backup_target.h"

#include <algorithm>
#include <array>
#include <cerrno>
#include <cstdio>
#include <cstring>
#include <ctime>
#include <optional>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "common/file.h"
#include "common/status_macros.h"

namespace gpipe::client {
namespace {

namespace fs = std::filesystem;

absl::Status IsThere(const fs::path& path) {
  return absl::InvalidArgumentError(absl::StrCat(path.string(), " is there already, and not an empty folder"));
}

class FolderTarget final : public BackupTarget {
 public:
  explicit FolderTarget(fs::path path) : path_(std::move(path)), partial_(path_.string() + ".partial") {}
  ~FolderTarget() override { RemovePartial(); }

  absl::Status Start() {
    std::error_code error;
    if (fs::exists(path_, error) && !fs::is_empty(path_, error)) return IsThere(path_);
    RemovePartial();  // Of a backup that was killed.
    return MakeFolder(partial_);
  }
  absl::Status Begin(const std::string& path, int64_t) override {
    GPIPE_RETURN_IF_ERROR(EndFile());
    GPIPE_RETURN_IF_ERROR(MakeFolder((partial_ / path).parent_path()));
    GPIPE_ASSIGN_OR_RETURN(AtomicFile file, AtomicFile::Create(partial_ / path));
    file_.emplace(std::move(file));
    return absl::OkStatus();
  }
  absl::Status Append(std::string_view data) override { return file_->Append(data); }
  absl::Status Commit() override {
    GPIPE_RETURN_IF_ERROR(EndFile());
    // An empty folder of that name is replaced.
    if (rename(partial_.c_str(), path_.c_str()) != 0) return ErrnoStatus(errno, "cannot make", path_);
    return SyncPath(path_.has_parent_path() ? path_.parent_path() : fs::path("."));
  }

 private:
  static absl::Status MakeFolder(const fs::path& path) {
    std::error_code error;
    fs::create_directories(path, error);
    return error ? ErrnoStatus(error.value(), "cannot create", path) : absl::OkStatus();
  }
  absl::Status EndFile() {
    if (!file_.has_value()) return absl::OkStatus();
    const absl::Status committed = file_->Commit();
    file_.reset();
    return committed;
  }
  void RemovePartial() {
    std::error_code error;
    fs::remove_all(partial_, error);
  }

  const fs::path path_, partial_;
  std::optional<AtomicFile> file_;
};

constexpr size_t kBlock = 512;

// Where each field of a header is.
struct TarField {
  size_t at;
  size_t size;
};
constexpr TarField kName{0, 100}, kMode{100, 8}, kUid{108, 8}, kGid{116, 8}, kSize{124, 12}, kTime{136, 12},
    kChecksum{148, 8}, kType{156, 1}, kMagic{257, 8};

using Header = std::array<char, kBlock>;

void Put(Header& header, TarField field, std::string_view text) {
  std::memcpy(header.data() + field.at, text.data(), std::min(field.size, text.size()));
}

void PutNumber(Header& header, TarField field, int64_t number) {
  const std::string octal = absl::StrFormat("%0*o", static_cast<int>(field.size) - 1, number);
  if (octal.size() < field.size) return Put(header, field, octal);
  for (size_t i = 0; i < field.size; ++i) {
    const size_t shift = 8 * (field.size - 1 - i);
    header[field.at + i] = shift >= 64 ? 0 : static_cast<char>(static_cast<uint64_t>(number) >> shift);
  }
  header[field.at] = static_cast<char>(0x80);
}

Header HeaderOf(const std::string& path, int64_t size) {
  Header header{};
  Put(header, kName, path);
  PutNumber(header, kMode, 0600);
  PutNumber(header, kUid, 0);
  PutNumber(header, kGid, 0);
  PutNumber(header, kSize, size);
  PutNumber(header, kTime, std::time(nullptr));
  Put(header, kChecksum, "        ");
  Put(header, kType, "0");
  Put(header, kMagic,
      std::string_view("ustar\0"
                       "00",
                       8));
  int64_t sum = 0;
  for (const char byte : header) sum += static_cast<unsigned char>(byte);
  std::string checksum = absl::StrFormat("%06o", sum);
  checksum.push_back('\0');
  checksum.push_back(' ');
  Put(header, kChecksum, checksum);
  return header;
}

class TarTarget final : public BackupTarget {
 public:
  explicit TarTarget(AtomicFile file) : file_(std::move(file)) {}

  absl::Status Begin(const std::string& path, int64_t size) override {
    if (path.size() > kName.size) return absl::InvalidArgumentError(absl::StrCat(path, ": is too long a name"));
    GPIPE_RETURN_IF_ERROR(Pad());
    const Header header = HeaderOf(path, size);
    return Append(std::string_view(header.data(), header.size()));
  }
  absl::Status Append(std::string_view data) override {
    written_ += data.size();
    return file_.Append(data);
  }
  absl::Status Commit() override {
    GPIPE_RETURN_IF_ERROR(Pad());
    GPIPE_RETURN_IF_ERROR(Append(std::string(2 * kBlock, '\0')));
    return file_.Commit();
  }

 private:
  absl::Status Pad() { return Append(std::string((kBlock - written_ % kBlock) % kBlock, '\0')); }

  AtomicFile file_;
  size_t written_ = 0;
};

}  // namespace

absl::StatusOr<std::unique_ptr<BackupTarget>> MakeFolderTarget(const fs::path& path) {
  auto target = std::make_unique<FolderTarget>(path.has_filename() ? path : path.parent_path());
  GPIPE_RETURN_IF_ERROR(target->Start());
  return target;
}

absl::StatusOr<std::unique_ptr<BackupTarget>> MakeTarTarget(const fs::path& path) {
  std::error_code error;
  if (fs::exists(path, error)) return IsThere(path);
  GPIPE_ASSIGN_OR_RETURN(AtomicFile file, AtomicFile::Create(path));
  return std::make_unique<TarTarget>(std::move(file));
}

}  // namespace gpipe::client
