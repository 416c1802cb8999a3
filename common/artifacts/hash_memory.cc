#include "common/artifacts/hash_memory.h"

#include <algorithm>
#include <cstdlib>
#include <sstream>
#include <system_error>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "common/file.h"
#include "common/sha256.h"
#include "common/status_macros.h"

namespace gpipe {
namespace {

namespace fs = std::filesystem;

constexpr char kFirstLine[] = "gpipe hashes 1";
constexpr size_t kMostEntries = 10'000;
// Of the whole file: paths are at most 4096 bytes.
constexpr size_t kMostBytes = size_t{64} << 20;
// A use is noted once in so many seconds, so that a run that learns nothing writes nothing.
constexpr int64_t kUseSeconds = 24 * 3600;

std::string KeyOf(const fs::path& path) {
  std::error_code error;
  const fs::path absolute = fs::absolute(path, error);
  return error ? std::string() : absolute.lexically_normal().string();
}

}  // namespace

fs::path HashMemory::DefaultFile() {
  // As the XDG specification has it, a relative path there is none.
  const char* cache = std::getenv("XDG_CACHE_HOME");
  if (cache != nullptr && *cache == '/') return fs::path(cache) / "gpipe" / "hashes";
  const char* home = std::getenv("HOME");
  if (home == nullptr || *home != '/') return {};
  return fs::path(home) / ".cache" / "gpipe" / "hashes";
}

HashMemory::HashMemory(fs::path file) : file_(std::move(file)) { Load(); }

HashMemory::~HashMemory() { Save().IgnoreError(); }

// A line is `SHA256 STAMP USED PATH`.
void HashMemory::Load() {
  if (file_.empty()) return;
  std::istringstream text(ReadFile(file_, kMostBytes).value_or(""));
  std::string line;
  if (!std::getline(text, line) || line != kFirstLine) return;
  while (std::getline(text, line)) LoadLine(line);
}

void HashMemory::LoadLine(const std::string& line) {
  Entry entry;
  std::istringstream fields(line);
  fields >> entry.sha256 >> entry.stamp >> entry.used;
  std::string path;
  if (!fields || fields.get() != ' ' || !std::getline(fields, path)) return;
  if (!IsSha256(entry.sha256) || path.front() != '/') return;
  entries_[path] = std::move(entry);
}

std::optional<std::string> HashMemory::Find(const fs::path& path, const FileStamp& stamp) const {
  const auto found = entries_.find(KeyOf(path));
  if (found == entries_.end() || found->second.stamp != stamp) return std::nullopt;
  const int64_t now = absl::ToUnixSeconds(absl::Now());
  if (now - found->second.used > kUseSeconds) {
    found->second.used = now;
    changed_ = true;
  }
  return found->second.sha256;
}

void HashMemory::Remember(const fs::path& path, const FileStamp& stamp, const std::string& sha256, absl::Time now) {
  const std::string key = KeyOf(path);
  if (key.empty() || key.find('\n') != std::string::npos || IsRecent(stamp, now)) return;
  entries_[key] = {stamp, sha256, absl::ToUnixSeconds(now)};
  changed_ = true;
}

absl::Status HashMemory::Save() {
  if (!changed_ || file_.empty()) return absl::OkStatus();
  changed_ = false;
  Forget();
  std::string text = absl::StrCat(kFirstLine, "\n");
  for (const auto& [path, entry] : entries_) {
    absl::StrAppend(&text, entry.sha256, " ", ToText(entry.stamp), " ", entry.used, " ", path, "\n");
  }
  std::error_code error;
  fs::create_directories(file_.parent_path(), error);
  if (error) return ErrnoStatus(error.value(), "cannot create", file_.parent_path());
  GPIPE_ASSIGN_OR_RETURN(AtomicFile file, AtomicFile::Create(file_));
  GPIPE_RETURN_IF_ERROR(file.Append(text));
  return file.Publish();
}

void HashMemory::Forget() {
  if (entries_.size() <= kMostEntries) return;
  std::vector<int64_t> uses;
  for (const auto& [path, entry] : entries_) uses.push_back(entry.used);
  std::ranges::nth_element(uses, uses.end() - kMostEntries);
  const int64_t oldest = *(uses.end() - kMostEntries);
  std::erase_if(entries_, [oldest](const auto& item) { return item.second.used < oldest; });
  while (entries_.size() > kMostEntries) entries_.erase(entries_.begin());
}

}  // namespace gpipe
