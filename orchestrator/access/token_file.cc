#include "orchestrator/access/token_file.h"

#include <openssl/crypto.h>

#include <utility>

#include "absl/strings/ascii.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "absl/time/clock.h"
#include "common/file.h"
#include "common/sha256.h"
#include "common/status_macros.h"
#include "common/string_view.h"
#include "spdlog/spdlog.h"

namespace gpipe::orchestrator {
namespace {

std::string DigestOf(std::string_view token) {
  Sha256 hash;
  hash.Update(token);
  return hash.HexDigest();
}

}  // namespace

absl::StatusOr<std::unique_ptr<TokenFile>> TokenFile::Open(const std::filesystem::path& path) {
  std::unique_ptr<TokenFile> file(new TokenFile(path));
  absl::MutexLock lock(&file->mutex_);
  GPIPE_RETURN_IF_ERROR(file->ReadIfChanged());
  return file;
}

absl::StatusOr<TokenFile::Entry> TokenFile::ParseLine(std::string_view line) {
  const std::vector<std::string> words = absl::StrSplit(AbslView(line), absl::ByAnyChar(" \t\r"), absl::SkipEmpty());
  if (words.size() != 3) return absl::InvalidArgumentError("must be `role name token`");
  const std::optional<Role> role = ParseRole(words[0]);
  if (!role) return absl::InvalidArgumentError("the role must be read, submit or admin");
  if (*role == Role::kWorker) return absl::InvalidArgumentError("workers say who they are by certificates, not tokens");
  if (words[2].size() < kLeastTokenBytes) {
    return absl::InvalidArgumentError(absl::StrCat("a token must have at least ", kLeastTokenBytes, " characters"));
  }
  return Entry{{words[1], *role}, DigestOf(words[2])};
}

absl::StatusOr<std::vector<TokenFile::Entry>> TokenFile::Read() const {
  GPIPE_ASSIGN_OR_RETURN(const std::string text, ReadFile(path_, kMaxFileBytes));
  std::vector<Entry> entries;
  int number = 0;
  for (const absl::string_view line : absl::StrSplit(text, '\n')) {
    ++number;
    const absl::string_view content = absl::StripAsciiWhitespace(line);
    if (content.empty() || content[0] == '#') continue;
    absl::StatusOr<Entry> entry = ParseLine(StdView(content));
    if (!entry.ok()) {
      return absl::InvalidArgumentError(absl::StrCat(path_.string(), ":", number, ": ", entry.status().message()));
    }
    entries.push_back(*std::move(entry));
  }
  return entries;
}

absl::Status TokenFile::ReadIfChanged() {
  const absl::StatusOr<FileStamp> stamp = StampOf(path_);
  const FileStamp now = stamp.value_or(FileStamp());
  if (now == stamp_ && !recent_) return absl::OkStatus();
  stamp_ = now;
  recent_ = stamp.ok() && IsRecent(now, absl::Now());
  absl::StatusOr<std::vector<Entry>> entries = Read();
  if (!entries.ok()) return absl::InvalidArgumentError(absl::StrCat("--tokens-file: ", entries.status().message()));
  entries_ = *std::move(entries);
  return absl::OkStatus();
}

std::optional<TokenFile::Owner> TokenFile::Find(std::string_view token) {
  const std::string digest = DigestOf(token);
  absl::MutexLock lock(&mutex_);
  const FileStamp before = stamp_;
  const absl::Status read = ReadIfChanged();
  if (stamp_ != before && read.ok()) spdlog::info("--tokens-file has changed: {} tokens", entries_.size());
  if (stamp_ != before && !read.ok()) spdlog::error("{}; tokens stay as they were", StdView(read.message()));
  const Entry* found = nullptr;
  for (const Entry& entry : entries_) {
    if (CRYPTO_memcmp(entry.digest.data(), digest.data(), digest.size()) == 0) found = &entry;
  }
  return found == nullptr ? std::nullopt : std::optional(found->owner);
}

}  // namespace gpipe::orchestrator
