#include "common/data/pattern.h"

#include <glob.h>

#include <algorithm>
#include <filesystem>

#include "absl/strings/str_cat.h"
#include "common/string_view.h"

namespace gpipe::data {
namespace {

std::string Quote(std::string_view text) {
  std::string quoted;
  for (const char c : text) {
    if (std::string_view("*?[]\\").find(c) != std::string_view::npos) quoted += '\\';
    quoted += c;
  }
  return quoted;
}

}  // namespace

bool IsShared(std::string_view path) { return path.substr(0, kSharedPrefix.size()) == kSharedPrefix; }

std::string SharedPath(std::string_view path) { return std::string(path.substr(kSharedPrefix.size())); }

bool IsPattern(std::string_view path) { return path.find_first_of("*?[") != std::string_view::npos; }

absl::StatusOr<std::vector<std::string>> Expand(const std::string& prefix, const std::string& path) {
  std::error_code error;
  if (!IsPattern(path) || std::filesystem::exists(prefix + path, error)) return std::vector<std::string>{path};
  glob_t found{};
  const int result = ::glob((Quote(prefix) + path).c_str(), GLOB_NOSORT, nullptr, &found);
  std::vector<std::string> matches;
  for (size_t i = 0; result == 0 && i < found.gl_pathc; ++i) matches.push_back(found.gl_pathv[i] + prefix.size());
  ::globfree(&found);
  if (matches.empty()) return absl::NotFoundError(absl::StrCat("no file matches ", prefix, path));
  std::sort(matches.begin(), matches.end());  // Not as the locale would.
  return matches;
}

}  // namespace gpipe::data
