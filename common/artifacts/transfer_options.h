#ifndef GPIPE_COMMON_ARTIFACTS_TRANSFER_OPTIONS_H_
#define GPIPE_COMMON_ARTIFACTS_TRANSFER_OPTIONS_H_

#include <cstdint>
#include <filesystem>
#include <functional>
#include <stop_token>

namespace gpipe {

class HashMemory;

// How far one file is on its way.
struct FileProgress {
  enum class Doing { kHashing, kSending, kFetching };
  Doing doing = Doing::kHashing;
  std::filesystem::path path;
  int64_t done = 0;
  int64_t total = 0;
};

using OnFileProgress = std::function<void(const FileProgress&)>;

// What whoever waits for a file may want of it.
struct TransferOptions {
  // Called on the thread that called, several hundred times a second: it must not take long. Null: nobody looks.
  OnFileProgress on_progress;
  // The transfer ends with CANCELLED soon after this is stopped.
  std::stop_token stop;
  // What is known of files that were read before; null: every file is read.
  HashMemory* memory = nullptr;

  void Report(FileProgress::Doing doing, const std::filesystem::path& path, int64_t done, int64_t total) const {
    if (on_progress) on_progress({doing, path, done, total});
  }
};

}  // namespace gpipe

#endif  // GPIPE_COMMON_ARTIFACTS_TRANSFER_OPTIONS_H_
