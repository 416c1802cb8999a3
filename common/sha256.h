#ifndef GPIPE_COMMON_SHA256_H_
#define GPIPE_COMMON_SHA256_H_

#include <filesystem>
#include <memory>
#include <string>
#include <string_view>

#include "absl/status/statusor.h"

namespace gpipe {

// Incremental SHA-256. Not for use by two threads at once.
class Sha256 {
 public:
  Sha256();
  ~Sha256();
  void Update(std::string_view data);
  // Lower-case hexadecimal; ends this object's use.
  std::string HexDigest();

 private:
  struct Context;
  std::unique_ptr<Context> context_;
};

absl::StatusOr<std::string> Sha256OfFile(const std::filesystem::path& path);

// 64 lower-case hexadecimal digits. Checked wherever a digest from outside becomes part of a path.
bool IsSha256(std::string_view text);

}  // namespace gpipe

#endif  // GPIPE_COMMON_SHA256_H_
