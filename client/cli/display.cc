#include "client/cli/display.h"

#include <unistd.h>

#include <cstdlib>
#include <string>

#include "absl/strings/str_format.h"
#include "client/api/json.h"
#include "client/cli/live_display.h"
#include "client/cli/plain_lines.h"

namespace gpipe::client {
namespace {

class NoDisplay : public Display {
 public:
  void Show(const v1::WatchJobResponse&) override {}
};

class JsonDisplay : public Display {
 public:
  explicit JsonDisplay(std::FILE* out) : out_(out) {}
  void Show(const v1::WatchJobResponse& update) override {
    absl::FPrintF(out_, "%s\n", ToJson(update, JsonStyle::kLine));
    std::fflush(out_);
  }

 private:
  std::FILE* const out_;
};

class PlainDisplay : public Display {
 public:
  explicit PlainDisplay(std::FILE* out) : out_(out) {}
  void Show(const v1::WatchJobResponse& update) override {
    for (const std::string& line : lines_.Take(update, absl::Now())) absl::FPrintF(out_, "%s\n", line);
    std::fflush(out_);
  }

 private:
  std::FILE* const out_;
  PlainLines lines_;
};

}  // namespace

std::unique_ptr<Display> MakeDisplay(DisplayKind kind, std::FILE* out) {
  switch (kind) {
    case DisplayKind::kNone:
      return std::make_unique<NoDisplay>();
    case DisplayKind::kPlain:
      return std::make_unique<PlainDisplay>(out);
    case DisplayKind::kLive:
      return std::make_unique<LiveDisplay>(out);
    case DisplayKind::kJson:
      return std::make_unique<JsonDisplay>(out);
  }
  return nullptr;
}

DisplayKind LiveOrPlain(std::FILE* out) {
  const char* terminal = std::getenv("TERM");
  const bool dumb = terminal == nullptr || std::string(terminal) == "dumb" || *terminal == '\0';
  return isatty(fileno(out)) && !dumb ? DisplayKind::kLive : DisplayKind::kPlain;
}

}  // namespace gpipe::client
