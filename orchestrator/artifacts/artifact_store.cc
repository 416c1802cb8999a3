#include "orchestrator/artifacts/artifact_store.h"

#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <fstream>
#include <string>
#include <system_error>
#include <utility>

#include "absl/strings/str_cat.h"
#include "common/artifacts/disk_room.h"
#include "common/artifacts/layout.h"
#include "common/artifacts/local_store.h"
#include "common/artifacts/parts.h"
#include "common/status_macros.h"
#include "spdlog/spdlog.h"

namespace gpipe::orchestrator {
namespace fs = std::filesystem;
namespace {

constexpr size_t kPieceBytes = 1 << 20;
// Beyond that, the newest are forgotten: their clients give the files again when they are told that they are not there.
constexpr size_t kMostClaims = 100'000;

absl::Status MakeFolder(const fs::path& path) {
  std::error_code error;
  bool created = fs::create_directories(path, error);
  if (error) return ErrnoStatus(error.value(), "cannot create", path);
  return created ? SyncPath(path.parent_path()) : absl::OkStatus();
}

// The content, or where it is (common/artifacts/local_store.h).
bool IsContent(const fs::path& path) { return path.extension().empty() || path.extension() == ".ref"; }

// Everything in the folder that is not the content it is named after.
absl::Status RemoveLeftovers(const fs::path& folder) {
  std::error_code error;
  for (const fs::directory_entry& entry : fs::directory_iterator(folder, error)) {
    if (IsSha256(entry.path().stem().string()) && IsContent(entry.path())) continue;
    std::error_code remove_error;
    fs::remove_all(entry.path(), remove_error);
    if (remove_error) return ErrnoStatus(remove_error.value(), "cannot remove", entry.path());
  }
  return error ? ErrnoStatus(error.value(), "cannot list", folder) : absl::OkStatus();
}

absl::Status RemoveAllLeftovers(const fs::path& root) {
  std::error_code error;
  for (const fs::directory_entry& entry : fs::directory_iterator(root, error)) {
    if (entry.is_directory()) GPIPE_RETURN_IF_ERROR(RemoveLeftovers(entry.path()));
  }
  return error ? ErrnoStatus(error.value(), "cannot list", root) : absl::OkStatus();
}

absl::Status CheckDigest(std::string_view sha256) {
  if (IsSha256(sha256)) return absl::OkStatus();
  return absl::InvalidArgumentError("an artifact's sha256 is not 64 lower-case hexadecimal digits");
}

}  // namespace

ArtifactStore::ArtifactStore(fs::path folder, const Options& options)
    : folder_(std::move(folder)), options_(options), clock_(options.clock != nullptr ? options.clock : &own_clock_) {}

absl::StatusOr<std::unique_ptr<ArtifactStore>> ArtifactStore::Open(const fs::path& folder, const Options& options) {
  GPIPE_RETURN_IF_ERROR(MakeFolder(folder / kTemporaryFolder));
  GPIPE_RETURN_IF_ERROR(RemoveAllLeftovers(folder));
  return std::unique_ptr<ArtifactStore>(new ArtifactStore(folder, options));
}

ArtifactStore::Writer::Writer(v1::ArtifactRef expected, AtomicFile file, bool synced)
    : expected_(std::move(expected)), file_(std::move(file)), synced_(synced), hash_(std::make_unique<Sha256>()) {}

absl::Status ArtifactStore::Writer::Append(std::string_view data) {
  if (static_cast<int64_t>(data.size()) > expected_.size() - size_) {
    return absl::DataLossError(
        absl::StrCat("artifact ", expected_.sha256(), ": more bytes than the ", expected_.size(), " announced"));
  }
  hash_->Update(data);
  size_ += static_cast<int64_t>(data.size());
  return file_.Append(data);
}

absl::Status ArtifactStore::Writer::Commit() {
  if (size_ != expected_.size()) {
    return absl::DataLossError(absl::StrCat("artifact ", expected_.sha256(), ": ", size_, " bytes instead of the ",
                                            expected_.size(), " announced"));
  }
  std::string digest = hash_->HexDigest();
  if (digest != expected_.sha256()) {
    return absl::DataLossError(absl::StrCat("artifact ", expected_.sha256(), ": the bytes have sha256 ", digest));
  }
  return synced_ ? file_.Commit() : file_.Publish();
}

absl::StatusOr<ArtifactStore::Writer> ArtifactStore::Begin(const v1::ArtifactRef& expected) {
  GPIPE_RETURN_IF_ERROR(CheckDigest(expected.sha256()));
  return Open(PathOf(expected.sha256()), expected, /*synced=*/true);
}

absl::StatusOr<ArtifactStore::Writer> ArtifactStore::BeginPart(const v1::PartOf& of, const v1::ArtifactRef& expected) {
  GPIPE_RETURN_IF_ERROR(CheckDigest(expected.sha256()));
  const std::string& job = of.attempt().job();
  if (job.empty() || job == ".." || fs::path(job).filename() != job) {
    return absl::InvalidArgumentError("a part needs the id of its job");
  }
  return Open(PartFolder(folder_, of) / expected.sha256(), expected, /*synced=*/false);
}

absl::StatusOr<ArtifactStore::Writer> ArtifactStore::Open(const fs::path& path, const v1::ArtifactRef& expected,
                                                          bool synced) {
  GPIPE_RETURN_IF_ERROR(CheckSize(expected.size()));
  GPIPE_RETURN_IF_ERROR(MakeFolder(path.parent_path()));
  GPIPE_RETURN_IF_ERROR(CheckRoom(folder_, expected.size()));
  GPIPE_ASSIGN_OR_RETURN(AtomicFile file, AtomicFile::Create(path));
  GPIPE_RETURN_IF_ERROR(TakeRoom(file.fd(), path, expected.size()));
  return Writer(expected, std::move(file), synced);
}

bool ArtifactStore::Has(const v1::ArtifactRef& ref) const { return Path(ref).ok(); }

absl::StatusOr<fs::path> ArtifactStore::Path(const v1::ArtifactRef& ref) const { return FindArtifact(folder_, ref); }

absl::StatusOr<fs::path> ArtifactStore::Claim(const v1::ArtifactRef& ref) {
  absl::MutexLock lock(&mutex_);
  if (IsSha256(ref.sha256())) Note(ref.sha256());
  return Path(ref);
}

void ArtifactStore::Note(const std::string& sha256) {
  const absl::Time now = Now();
  if (claims_.size() >= kMostClaims) {
    std::erase_if(claims_, [&](const auto& claim) { return claim.second < now - kClaimLasts; });
  }
  if (claims_.size() < kMostClaims || claims_.contains(sha256)) claims_[sha256] = now;
}

bool ArtifactStore::IsClaimed(const std::string& sha256, absl::Time after) const {
  const auto found = claims_.find(sha256);
  return found != claims_.end() && found->second > std::max(after, Now() - kClaimLasts);
}

ArtifactStore::Keep::Keep(ArtifactStore* store) : store_(store) {
  absl::MutexLock lock(&store_->mutex_);
  ++store_->keeps_;
}

ArtifactStore::Keep::~Keep() {
  absl::MutexLock lock(&store_->mutex_);
  --store_->keeps_;
}

void ArtifactStore::Remove(const v1::ArtifactRef& ref, absl::Time when) {
  absl::MutexLock lock(&mutex_);
  if (!IsSha256(ref.sha256()) || keeps_ > 0 || IsClaimed(ref.sha256(), when)) return;
  std::error_code error;
  fs::remove(PathOf(ref.sha256()), error);
  if (error) spdlog::warn("cannot remove {}: {}", PathOf(ref.sha256()).string(), error.message());
}

bool ArtifactStore::RemoveIfDamaged(const v1::ArtifactRef& ref) {
  if (!IsSha256(ref.sha256())) return false;
  const fs::path path = PathOf(ref.sha256());
  const absl::StatusOr<std::string> digest = Sha256OfFile(path);
  if (absl::IsNotFound(digest.status()) || (digest.ok() && *digest == ref.sha256())) return false;
  spdlog::error("{} is damaged, and removed: {}", path.string(),
                digest.ok() ? absl::StrCat("its content has sha256 ", *digest) : digest.status().ToString());
  std::error_code error;
  fs::remove(path, error);
  return !error;
}

std::vector<v1::ArtifactRef> ArtifactStore::Unclaimed() const {
  std::vector<v1::ArtifactRef> old;
  std::error_code error;
  const auto since = fs::file_time_type::clock::now() - absl::ToChronoHours(kClaimLasts);
  for (const fs::directory_entry& folder : fs::directory_iterator(folder_, error)) {
    if (folder.path().filename() == kTemporaryFolder) continue;
    for (const fs::directory_entry& entry : fs::directory_iterator(folder.path(), error)) {
      const std::string name = entry.path().filename().string();
      if (!IsSha256(name) || entry.last_write_time(error) > since || error) continue;
      absl::MutexLock lock(&mutex_);
      if (IsClaimed(name, absl::InfinitePast())) continue;
      old.emplace_back().set_sha256(name);
      old.back().set_size(static_cast<int64_t>(entry.file_size(error)));
    }
  }
  return old;
}

absl::Status ArtifactStore::Adopt(const fs::path& path, const v1::ArtifactRef& ref) {
  GPIPE_RETURN_IF_ERROR(CheckDigest(ref.sha256()));
  GPIPE_RETURN_IF_ERROR(CheckSize(ref.size()));
  GPIPE_RETURN_IF_ERROR(SyncPath(path));
  GPIPE_RETURN_IF_ERROR(MakeFolderOf(ref.sha256()));
  const fs::path target = PathOf(ref.sha256());
  if (rename(path.c_str(), target.c_str()) == 0) return SyncPath(target.parent_path());
  if (errno == EXDEV) return CopyIn(path, ref);
  return ErrnoStatus(errno, "cannot move into the artifacts", path);
}

absl::Status ArtifactStore::CopyIn(const fs::path& path, const v1::ArtifactRef& ref) {
  GPIPE_ASSIGN_OR_RETURN(Writer writer, Begin(ref));
  std::ifstream input(path, std::ios::binary);
  std::string piece(kPieceBytes, '\0');
  while (input.read(piece.data(), static_cast<std::streamsize>(piece.size())), input.gcount() > 0) {
    GPIPE_RETURN_IF_ERROR(writer.Append(std::string_view(piece.data(), input.gcount())));
  }
  GPIPE_RETURN_IF_ERROR(writer.Commit());
  std::error_code error;
  fs::remove(path, error);
  return error ? ErrnoStatus(error.value(), "cannot remove", path) : absl::OkStatus();
}

absl::StatusOr<v1::ArtifactRef> ArtifactStore::Put(std::string_view content) {
  Sha256 hash;
  hash.Update(content);
  v1::ArtifactRef ref;
  ref.set_sha256(hash.HexDigest());
  ref.set_size(static_cast<int64_t>(content.size()));
  GPIPE_ASSIGN_OR_RETURN(Writer writer, Begin(ref));
  GPIPE_RETURN_IF_ERROR(writer.Append(content));
  GPIPE_RETURN_IF_ERROR(writer.Commit());
  return ref;
}

fs::path ArtifactStore::TemporaryPath() { return folder_ / kTemporaryFolder / absl::StrCat(next_temporary_++); }

absl::Status ArtifactStore::CheckSize(int64_t size) const {
  if (size < 0) return absl::InvalidArgumentError(absl::StrCat("an artifact's size is negative: ", size));
  if (size <= options_.max_artifact_bytes) return absl::OkStatus();
  return absl::ResourceExhaustedError(
      absl::StrCat("an artifact of ", size, " bytes is over the limit of ", options_.max_artifact_bytes, " bytes"));
}

fs::path ArtifactStore::PathOf(std::string_view sha256) const { return ArtifactPath(folder_, sha256); }

absl::Status ArtifactStore::MakeFolderOf(std::string_view sha256) const {
  return MakeFolder(PathOf(sha256).parent_path());
}

}  // namespace gpipe::orchestrator
