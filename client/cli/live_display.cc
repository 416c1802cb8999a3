#include "client/cli/live_display.h"

#include <sys/ioctl.h>

#include <algorithm>
#include <cstdlib>

#include "absl/strings/str_cat.h"
#include "client/cli/render.h"
#include "common/logging.h"

namespace gpipe::client {
namespace {

constexpr absl::Duration kBetweenDraws = absl::Milliseconds(100);
// Without news the view is drawn again this often, for its clock.
constexpr absl::Duration kTick = absl::Seconds(1);

winsize TerminalSize(std::FILE* out) {
  winsize size{};
  const bool known = ioctl(fileno(out), TIOCGWINSZ, &size) == 0 && size.ws_col > 0 && size.ws_row > 0;
  if (!known) size = {.ws_row = 24, .ws_col = 80, .ws_xpixel = 0, .ws_ypixel = 0};
  return size;
}

bool ColorWanted() {
  const char* no_color = std::getenv("NO_COLOR");
  return no_color == nullptr || *no_color == '\0';
}

}  // namespace

std::string Redraw(int previous_lines, const std::vector<std::string>& lines) {
  std::string text;
  if (previous_lines > 0) absl::StrAppend(&text, "\x1b[", previous_lines, "A");
  absl::StrAppend(&text, "\r\x1b[J");
  for (const std::string& line : lines) absl::StrAppend(&text, line, "\n");
  return text;
}

LiveDisplay::LiveDisplay(std::FILE* out) : out_(out), color_(ColorWanted()), thread_([this] { DrawLoop(); }) {}

LiveDisplay::~LiveDisplay() { Finish(); }

void LiveDisplay::Show(const v1::WatchJobResponse& update) {
  absl::MutexLock lock(&mutex_);
  progress_.Apply(update, absl::Now());
  dirty_ = true;
}

void LiveDisplay::Finish() {
  {
    absl::MutexLock lock(&mutex_);
    finished_ = true;
  }
  if (thread_.joinable()) thread_.join();
}

void LiveDisplay::DrawLoop() {
  SetThreadName("display");
  bool finished = false;
  while (!finished) {
    {
      absl::MutexLock lock(&mutex_);
      mutex_.AwaitWithTimeout(absl::Condition(this, &LiveDisplay::DirtyOrFinished), kTick);
    }
    Draw();
    absl::MutexLock lock(&mutex_);
    finished = mutex_.AwaitWithTimeout(absl::Condition(&finished_), kBetweenDraws) && !dirty_;
  }
}

void LiveDisplay::Draw() {
  std::vector<std::string> lines;
  const winsize size = TerminalSize(out_);
  {
    absl::MutexLock lock(&mutex_);
    dirty_ = false;
    if (progress_.job().id().empty()) return;
    // One column less: a line that fills the last one makes some terminals wrap.
    lines = RenderLive(progress_, {size.ws_col - 1, color_}, absl::Now());
  }
  // What has scrolled off the top could not be drawn over.
  if (lines.size() >= size.ws_row) lines.resize(std::max(1, size.ws_row - 1));
  const std::string text = Redraw(drawn_lines_, lines);
  drawn_lines_ = static_cast<int>(lines.size());
  std::fwrite(text.data(), 1, text.size(), out_);
  std::fflush(out_);
}

}  // namespace gpipe::client
