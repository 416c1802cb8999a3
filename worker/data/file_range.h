#ifndef GPIPE_WORKER_DATA_FILE_RANGE_H_
#define GPIPE_WORKER_DATA_FILE_RANGE_H_

#include <cstdint>
#include <filesystem>

#include "absl/status/status.h"
#include "absl/types/span.h"

namespace gpipe::worker {

// Fills `data` with the bytes of a local file from offset on. DATA_LOSS: it ends before. Any thread.
absl::Status ReadFileRange(const std::filesystem::path& path, int64_t offset, absl::Span<char> data);

}  // namespace gpipe::worker

#endif  // GPIPE_WORKER_DATA_FILE_RANGE_H_
