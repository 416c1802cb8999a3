#ifndef GPIPE_CLIENT_CLI_FILE_PROGRESS_LINE_H_
#define GPIPE_CLIENT_CLI_FILE_PROGRESS_LINE_H_

#include <cstdio>
#include <filesystem>
#include <string>

#include "absl/time/time.h"
#include "common/artifacts/transfer_options.h"

namespace gpipe::client {

// `reading model.pt2: 1.2 GiB of 2.6 GiB (46%), 1.7 GiB/s`, which is what has been read of it by then.
std::string RenderFileProgress(const FileProgress& progress, absl::Duration elapsed);

// Says how far the file is that somebody waits for, when the wait is one that a person notices: on a terminal one line
// that is drawn over and goes away again, in a log a line a second. One thread.
class FileProgressLine {
 public:
  // `out` must outlive the line.
  FileProgressLine(std::FILE* out, bool live) : out_(out), live_(live) {}

  void Show(const FileProgress& progress, absl::Time now);

 private:
  std::FILE* const out_;
  const bool live_;
  // The file that goes on, since when, and what is done with it.
  std::filesystem::path path_;
  FileProgress::Doing doing_ = FileProgress::Doing::kHashing;
  absl::Time began_;
  absl::Time last_heard_ = absl::InfinitePast();
  absl::Time last_drawn_ = absl::InfinitePast();
  bool drawn_ = false;  // There is a line on the terminal that is to go away.
};

// For ClientOptions: nothing when `quiet`.
OnFileProgress ShowFilesOn(std::FILE* out, bool quiet);

}  // namespace gpipe::client

#endif  // GPIPE_CLIENT_CLI_FILE_PROGRESS_LINE_H_
