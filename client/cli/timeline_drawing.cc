#include "client/cli/timeline_drawing.h"

#include <algorithm>
#include <cmath>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "client/cli/format.h"
#include "client/cli/svg.h"
#include "client/cli/timeline_output.h"

namespace gpipe::client {
namespace {

constexpr int kMargin = 24;
constexpr int kTop = 76;     // Under the words and the legend.
constexpr int kLabel = 150;  // Left of the rows.
constexpr int kWidth = 1000;
constexpr int kRow = 34;
constexpr int kRowStep = kRow + 6;
constexpr int kAxis = 30;  // Under the rows.
constexpr int kShareBar = 16;
constexpr int kShareStep = kShareBar + 8;
constexpr int kShareWidth = 400;
constexpr int kDigit = 7;
constexpr int kTicks = 5;
constexpr size_t kLongestLabel = 22;

constexpr char kStyle[] = R"(text { font: 11px Helvetica, Arial, sans-serif; fill: #1e293b; }
.title { font-size: 16px; font-weight: bold; }
.note { fill: #475569; }
.middle { text-anchor: middle; }
.number { font: 10px DejaVu Sans Mono, Menlo, monospace; text-anchor: middle; fill: #ffffff; }
.bubble { fill: url(#bubble); stroke: #cbd5e1; stroke-width: 0.5; }
.forward { fill: #2563eb; stroke: #ffffff; stroke-width: 0.5; }
.backward { fill: #15803d; stroke: #ffffff; stroke-width: 0.5; }
.recompute { fill: #0891b2; stroke: #ffffff; stroke-width: 0.5; }
.optimizer { fill: #7c3aed; stroke: #ffffff; stroke-width: 0.5; }
.busy { fill: #64748b; }
.axis { fill: none; stroke: #94a3b8; }
)";

const char* LookOf(v1::ActionKind kind) {
  switch (kind) {
    case v1::ACTION_KIND_FORWARD:
      return "forward";
    case v1::ACTION_KIND_BACKWARD:
      return "backward";
    case v1::ACTION_KIND_RECOMPUTE:
      return "recompute";
    case v1::ACTION_KIND_OPTIMIZER:
      return "optimizer";
    default:
      return "busy";
  }
}

class Drawing {
 public:
  explicit Drawing(const v1::StepTimeline& timeline)
      : timeline_(timeline),
        span_(static_cast<double>(SpanNanos(timeline))),
        bottom_(kTop + std::max(1, timeline.workers_size()) * kRowStep) {}

  std::string Draw() {
    svg_.Hatch("bubble", "#e2b4b4");
    svg_.Text(kMargin, 28, "title", TimelineTitle(timeline_));
    DrawLegend();
    for (int worker = 0; worker < timeline_.workers_size(); ++worker) DrawRow(worker);
    for (const v1::ActionDone& action : timeline_.actions()) DrawAction(action);
    DrawAxis();
    const int end = DrawShares(bottom_ + kAxis + kShareStep);
    return svg_.Render(2 * kMargin + kLabel + kWidth, end + kMargin, kStyle);
  }

 private:
  static int Left() { return kMargin + kLabel; }
  int XOf(int64_t nanos) const {
    return Left() + static_cast<int>(std::lround(static_cast<double>(nanos) / span_ * kWidth));
  }
  static int YOf(int worker) { return kTop + worker * kRowStep; }

  void DrawLegend() {
    constexpr std::pair<const char*, const char*> kLooks[] = {{"forward", "forward"},
                                                              {"recompute", "recompute"},
                                                              {"backward", "backward"},
                                                              {"optimizer", "optimizer"},
                                                              {"bubble", "bubble: nothing computed"}};
    int x = Left();
    for (const auto& [look, words] : kLooks) {
      svg_.Bar(x, 44, 14, 14, look, words);
      svg_.Text(x + 20, 55, "note", words);
      x += 110;
    }
  }

  void DrawRow(int worker) {
    std::vector<std::string> stages;
    for (int stage = 0; stage < timeline_.stage_worker_size(); ++stage) {
      if (timeline_.stage_worker(stage) == worker) stages.push_back(absl::StrCat(stage));
    }
    const std::string label = absl::StrCat(stages.size() == 1 ? "stage " : "stages ", absl::StrJoin(stages, ", "));
    svg_.Text(kMargin, YOf(worker) + 15, "", label.substr(0, kLongestLabel));
    svg_.Text(kMargin, YOf(worker) + 28, "note", timeline_.workers(worker).substr(0, kLongestLabel));
    svg_.Bar(Left(), YOf(worker), kWidth, kRow, "bubble", "bubble");
  }

  void DrawAction(const v1::ActionDone& action) {
    const int worker = WorkerOf(timeline_, action.stage());
    if (worker < 0 || worker >= timeline_.workers_size()) return;
    const int left = XOf(action.start_nanos()), right = XOf(action.start_nanos() + action.nanos());
    const std::string title = absl::StrCat("stage ", action.stage(), " ", ActionName(action), ": ",
                                           FormatShortTime(static_cast<double>(action.nanos()) * 1e-9), " from ",
                                           FormatShortTime(static_cast<double>(action.start_nanos()) * 1e-9));
    svg_.Bar(left, YOf(worker), std::max(1, right - left), kRow, LookOf(action.kind()), title);
    const std::string number = action.micro_batch() < 0 ? "" : absl::StrCat(action.micro_batch());
    const bool fits = static_cast<int>(number.size()) * kDigit + 2 <= right - left;
    if (fits && !number.empty()) svg_.Text((left + right) / 2, YOf(worker) + kRow / 2 + 4, "number", number);
  }

  void DrawAxis() {
    svg_.Path(absl::StrCat("M", Left(), ",", bottom_ + 2, " H", Left() + kWidth), "axis", "time");
    for (int tick = 0; tick <= kTicks; ++tick) {
      const int x = Left() + tick * kWidth / kTicks;
      svg_.Path(absl::StrCat("M", x, ",", bottom_ + 2, " V", bottom_ + 7), "axis", "time");
      const std::string time = tick == 0 ? "0" : FormatShortTime(span_ * 1e-9 * tick / kTicks);
      svg_.Text(x, bottom_ + 20, "note middle", time);
    }
  }

  // Below each other, so that they compare; returns where they end.
  int DrawShares(int y) {
    y = DrawShare(y, "measured", timeline_.bubble_share());
    if (timeline_.has_forecast()) y = DrawShare(y, "forecast", timeline_.forecast().bubble_share());
    return DrawShare(y, "ideal, (K-1)/(M+K-1)", timeline_.ideal_bubble_share());
  }

  int DrawShare(int y, const std::string& words, double share) {
    const int idle = static_cast<int>(std::lround(std::clamp(share, 0.0, 1.0) * kShareWidth));
    svg_.Text(kMargin, y + 12, "", words);
    svg_.Bar(Left(), y, kShareWidth - idle, kShareBar, "busy", "computing");
    svg_.Bar(Left() + kShareWidth - idle, y, idle, kShareBar, "bubble", "bubble");
    svg_.Text(Left() + kShareWidth + 8, y + 12, "", absl::StrCat("bubble ", FormatPercent(share)));
    return y + kShareStep;
  }

  const v1::StepTimeline& timeline_;
  const double span_;  // Nanoseconds.
  const int bottom_;   // Of the rows.
  Svg svg_;
};

}  // namespace

std::string DrawTimeline(const v1::StepTimeline& timeline) { return Drawing(timeline).Draw(); }

}  // namespace gpipe::client
