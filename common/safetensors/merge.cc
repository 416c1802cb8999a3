#include "common/safetensors/merge.h"

#include <fcntl.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <map>
#include <string>
#include <utility>

#include "absl/strings/str_cat.h"
#include "common/file.h"
#include "common/safetensors/header.h"
#include "common/status_macros.h"

namespace gpipe::safetensors {
namespace {

constexpr uint64_t kMostPieceBytes = uint64_t{8} << 20;

// Where a tensor of the output comes from.
struct Source {
  size_t part;
  TensorInfo range;
};

// A file open for reading.
class Input {
 public:
  static absl::StatusOr<Input> Open(const std::filesystem::path& path) {
    const int fd = open(path.c_str(), O_RDONLY | O_CLOEXEC);
    if (fd < 0) return ErrnoStatus(errno, "cannot read", path);
    return Input(path, fd);
  }
  Input(Input&& other) noexcept : path_(std::move(other.path_)), fd_(std::exchange(other.fd_, -1)) {}
  ~Input() {
    if (fd_ >= 0) close(fd_);
  }

  absl::Status Read(uint64_t offset, char* data, size_t size) const {
    while (size > 0) {
      const ssize_t count = pread(fd_, data, size, static_cast<off_t>(offset));
      if (count < 0 && errno == EINTR) continue;
      if (count < 0) return ErrnoStatus(errno, "cannot read", path_);
      if (count == 0) return absl::DataLossError(absl::StrCat(path_.string(), " became shorter while it was read"));
      data += count;
      size -= static_cast<size_t>(count);
      offset += static_cast<uint64_t>(count);
    }
    return absl::OkStatus();
  }

 private:
  Input(std::filesystem::path path, int fd) : path_(std::move(path)), fd_(fd) {}
  std::filesystem::path path_;
  int fd_;
};

// Puts small tensors together and takes large ones apart, into pieces of one size in two buffers that take turns. A
// small file has a small piece: each thread that merges one would else leave its arena of the heap with two large ones.
class Pieces {
 public:
  // `bytes` come in all.
  Pieces(const TakeBytes& take, uint64_t bytes) : take_(take), piece_bytes_(std::min(bytes, kMostPieceBytes)) {}

  absl::Status Copy(const Input& input, const TensorInfo& range) {
    for (uint64_t offset = range.begin; offset < range.end;) {
      std::string& piece = pieces_[current_];
      piece.resize(piece_bytes_);
      const size_t count = std::min<uint64_t>(range.end - offset, piece_bytes_ - filled_);
      GPIPE_RETURN_IF_ERROR(input.Read(offset, piece.data() + filled_, count));
      offset += count;
      filled_ += count;
      if (filled_ == piece_bytes_) GPIPE_RETURN_IF_ERROR(HandOut());
    }
    return absl::OkStatus();
  }

  absl::Status HandOut() {
    const std::string& piece = pieces_[std::exchange(current_, 1 - current_)];
    return take_(std::string_view(piece).substr(0, std::exchange(filled_, 0)));
  }

 private:
  const TakeBytes& take_;
  const size_t piece_bytes_;
  std::array<std::string, 2> pieces_;
  size_t current_ = 0;
  size_t filled_ = 0;  // Bytes of the current one.
};

}  // namespace

absl::Status Merge(const std::vector<std::filesystem::path>& parts, const TakeBytes& take) {
  std::map<std::string, Source> sources;
  std::vector<Input> inputs;
  for (size_t part = 0; part < parts.size(); ++part) {
    GPIPE_ASSIGN_OR_RETURN(const Header header, ReadHeader(parts[part]));
    for (const auto& [name, info] : header.tensors) {
      if (!sources.emplace(name, Source{part, info}).second) {
        return absl::InvalidArgumentError(absl::StrCat("tensor '", name, "' is in two of the parts"));
      }
    }
    GPIPE_ASSIGN_OR_RETURN(Input input, Input::Open(parts[part]));
    inputs.push_back(std::move(input));
  }
  std::vector<std::pair<std::string, TensorInfo>> tensors;
  uint64_t bytes = 0;
  for (const auto& [name, source] : sources) {
    tensors.emplace_back(name, source.range);
    bytes += source.range.end - source.range.begin;
  }
  const std::string header = BuildHeader(tensors);
  Pieces pieces(take, bytes);
  const auto copy = [&]() -> absl::Status {
    GPIPE_RETURN_IF_ERROR(take(header));
    for (const auto& [name, source] : sources) GPIPE_RETURN_IF_ERROR(pieces.Copy(inputs[source.part], source.range));
    return pieces.HandOut();
  };
  absl::Status copied = copy();
  copied.Update(take({}));
  return copied;
}

}  // namespace gpipe::safetensors
