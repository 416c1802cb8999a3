#include "client/cli/file_progress_line.h"

#include <cstdio>
#include <memory>
#include <string>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "absl/time/clock.h"
#include "client/cli/display.h"
#include "client/cli/format.h"

namespace gpipe::client {
namespace {

constexpr absl::Duration kBetweenLines = absl::Seconds(1);
constexpr absl::Duration kBetweenDraws = absl::Milliseconds(100);
// Until then nobody wonders.
constexpr absl::Duration kPatience = absl::Milliseconds(500);

const char* Verb(FileProgress::Doing doing) {
  switch (doing) {
    case FileProgress::Doing::kHashing:
      return "reading";
    case FileProgress::Doing::kSending:
      return "sending";
    case FileProgress::Doing::kFetching:
      return "fetching";
  }
  return "";
}

}  // namespace

std::string RenderFileProgress(const FileProgress& progress, absl::Duration elapsed) {
  const double share = progress.total > 0 ? static_cast<double>(progress.done) / progress.total : 1;
  std::string line =
      absl::StrCat(Verb(progress.doing), " ", progress.path.filename().string(), ": ", FormatBytes(progress.done),
                   " of ", FormatBytes(progress.total), " (", FormatPercent(share), ")");
  const double seconds = absl::ToDoubleSeconds(elapsed);
  if (seconds > 0) absl::StrAppend(&line, ", ", FormatBytes(static_cast<int64_t>(progress.done / seconds)), "/s");
  return line;
}

void FileProgressLine::Show(const FileProgress& progress, absl::Time now) {
  if (path_ != progress.path || doing_ != progress.doing) {
    // When this is another wait, nobody has had the time to wonder yet.
    if (now - last_heard_ > kBetweenLines) last_drawn_ = now + kPatience - kBetweenLines;
    path_ = progress.path;
    doing_ = progress.doing;
    began_ = now;
  }
  last_heard_ = now;
  const bool ends = progress.done >= progress.total;
  if (live_ && ends && drawn_) {
    absl::FPrintF(out_, "\r\x1b[K");
    drawn_ = false;
  } else if (now - last_drawn_ >= (live_ && drawn_ ? kBetweenDraws : kBetweenLines)) {
    const std::string line = RenderFileProgress(progress, now - began_);
    std::fputs((live_ ? absl::StrCat("\r", line, "\x1b[K") : absl::StrCat(line, "\n")).c_str(), out_);
    last_drawn_ = now;
    drawn_ = live_;
  }
  std::fflush(out_);
}

OnFileProgress ShowFilesOn(std::FILE* out, bool quiet) {
  if (quiet) return nullptr;
  const auto line = std::make_shared<FileProgressLine>(out, LiveOrPlain(out) == DisplayKind::kLive);
  return [line](const FileProgress& progress) { line->Show(progress, absl::Now()); };
}

}  // namespace gpipe::client
