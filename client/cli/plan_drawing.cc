#include "client/cli/plan_drawing.h"

#include <algorithm>
#include <map>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "client/cli/arcs.h"
#include "client/cli/format.h"
#include "client/cli/plan_boxes.h"
#include "client/cli/plan_facts.h"
#include "client/cli/svg.h"

namespace gpipe::client {
namespace {

constexpr size_t kMostBoxes = 12;
constexpr int kCharacter = 7;  // Width of one in the names' font.
constexpr int kMargin = 24;
constexpr int kTop = 64;  // Under the words at the top.
constexpr int kPadding = 10;
constexpr int kHeader = 40;
constexpr int kBox = 36;
constexpr int kBoxStep = kBox + 6;
constexpr int kLine = 15;
constexpr int kArrowStep = 34;
constexpr int kArcLine = 13;
constexpr size_t kMostArcLines = 4;
constexpr size_t kLongestName = 30;
constexpr int kTieSpace = 4;  // Under the columns.

constexpr char kStyle[] = R"(text { font: 11px Helvetica, Arial, sans-serif; fill: #1e293b; }
.title { font-size: 16px; font-weight: bold; }
.stage { font-size: 13px; font-weight: bold; text-anchor: middle; }
.note { fill: #475569; }
.middle { text-anchor: middle; }
.name { font: 11px DejaVu Sans Mono, Menlo, monospace; }
.value { font: 10px DejaVu Sans Mono, Menlo, monospace; text-anchor: middle; }
.bytes { font-size: 10px; text-anchor: middle; fill: #475569; }
.worker0 { fill: #eff6ff; stroke: #93c5fd; }
.worker1 { fill: #f0fdf4; stroke: #86efac; }
.worker2 { fill: #fff7ed; stroke: #fdba74; }
.worker3 { fill: #faf5ff; stroke: #d8b4fe; }
.module { fill: #ffffff; stroke: #94a3b8; }
.clear { fill: #ffffff; fill-opacity: 0.85; }
.cross { fill: none; stroke: #334155; stroke-width: 1.5; marker-end: url(#cross); }
.skip { fill: none; stroke: #b45309; stroke-width: 1.5; marker-end: url(#skip); }
.skipped { fill: #b45309; }
.tie { fill: none; stroke: #7c3aed; stroke-width: 1.5; stroke-dasharray: 5 3; }
.tied { fill: #7c3aed; }
)";
constexpr int kColors = 4;  // Of workers.

// The end of a module's path says more than its beginning; of a value's name it is the other way round.
std::string EndOf(const std::string& text) {
  return text.size() <= kLongestName ? text : absl::StrCat("...", text.substr(text.size() - kLongestName + 3));
}
std::string BeginOf(const std::string& text, size_t length) {
  return text.size() <= length ? text : absl::StrCat(text.substr(0, length - 3), "...");
}

std::string NoteOf(const PlanBox& box) {
  std::string note = box.parameters > 0 ? absl::StrCat(FormatCount(box.parameters), " parameters") : "";
  if (box.part) absl::StrAppend(&note, note.empty() ? "" : ", ", "in part");
  return note;
}

int WidthOf(size_t characters) { return static_cast<int>(characters) * kCharacter; }

class Drawing {
 public:
  explicit Drawing(const v1::PlanJobResponse& response)
      : response_(response), plan_(response.plan()), boxes_(BoxesOf(plan_, kMostBoxes)), ties_(TiesOverStages()) {
    for (const v1::Edge& edge : plan_.edges()) (IsSkip(edge) ? skips_ : crossings_)[Ends(edge)].push_back(&edge);
    Measure();
  }

  std::string Draw() {
    svg_.Arrow("cross", "#334155");
    svg_.Arrow("skip", "#b45309");
    DrawWords();
    for (int stage = 0; stage < plan_.stages_size(); ++stage) DrawStage(stage);
    for (const auto& [ends, edges] : crossings_) DrawCrossings(ends.first, edges);
    DrawSkips();
    DrawTies();
    return svg_.Render(width_, height_, kStyle);
  }

 private:
  using Edges = std::vector<const v1::Edge*>;
  static std::pair<int, int> Ends(const v1::Edge& edge) { return {edge.from_stage(), edge.to_stage()}; }

  std::vector<TiedTensor> TiesOverStages() const {
    std::vector<TiedTensor> ties = TiedTensors(plan_);
    std::erase_if(ties, [](const TiedTensor& tied) { return tied.stages.size() < 2; });
    return ties;
  }

  void Measure() {
    size_t longest = 18, rows = 3, name = 4;
    for (const auto& boxes : boxes_) {
      rows = std::max(rows, boxes.size());
      for (const PlanBox& box : boxes) {
        longest = std::max({longest, std::min(box.label.size(), kLongestName), NoteOf(box).size()});
      }
    }
    for (const auto& [ends, edges] : crossings_) {
      for (const v1::Edge* edge : edges) name = std::max(name, edge->value().size());
    }
    column_ = WidthOf(longest) + 4 * kPadding;
    gap_ = WidthOf(std::min<size_t>(name, 20)) + 30;
    box_zone_ = static_cast<int>(rows) * kBoxStep;
    for (const auto& [ends, edges] : skips_) {
      skip_arcs_.push_back({ends.first, ends.second, static_cast<int>(std::min(edges.size(), kMostArcLines))});
    }
    for (const TiedTensor& tied : ties_) tie_arcs_.push_back({tied.stages.front(), tied.stages.back(), 1});
    skip_lanes_ = LanesOf(skip_arcs_, kArcLine);
    tie_lanes_ = LanesOf(tie_arcs_, kArcLine);
    top_ = kTop + skip_lanes_.height;
    bottom_ = top_ + kHeader + box_zone_ + 4 * kLine + kPadding;
    width_ = std::max(2 * kMargin + plan_.stages_size() * (column_ + gap_) - gap_, 640);
    height_ = bottom_ + kTieSpace + tie_lanes_.height + kMargin;
  }

  int LeftOf(int stage) const { return kMargin + stage * (column_ + gap_); }
  int MiddleOf(int stage) const { return LeftOf(stage) + column_ / 2; }

  void DrawWords() {
    const int workers = plan_.stage_worker().empty() ? 0 : *plan_.stage_worker().rbegin() + 1;
    svg_.Text(kMargin, 28, "title",
              absl::StrCat(plan_.stages_size(), plan_.stages_size() == 1 ? " stage on " : " stages on ", workers,
                           workers == 1 ? " worker" : " workers"));
    std::vector<std::string> words;
    if (const v1::Program* program = MainProgram(plan_); program != nullptr) {
      words.push_back(absl::StrCat("a mini-batch of ", program->batch_size(), " in ", program->micro_batch_sizes_size(),
                                   " micro-batches"));
    }
    const v1::Forecast& forecast = response_.forecast();
    if (forecast.step_seconds() > 0) words.push_back(absl::StrCat(FormatShortTime(forecast.step_seconds()), " a step"));
    const double bubble = forecast.bubble_share() > 0 ? forecast.bubble_share() : response_.bubble_share();
    words.push_back(absl::StrCat("bubble ", FormatPercent(bubble)));
    words.push_back("bytes are of one micro-batch");
    svg_.Text(kMargin, 46, "note", absl::StrJoin(words, ", "));
  }

  void DrawStage(int stage) {
    const int left = LeftOf(stage), worker = WorkerOf(plan_, stage);
    svg_.Box(left, top_, column_, bottom_ - top_, absl::StrCat("worker", std::max(worker, 0) % kColors));
    svg_.Text(MiddleOf(stage), top_ + 18, "stage", absl::StrCat("stage ", stage));
    const auto& inputs = plan_.stages(stage).inputs();
    if (!inputs.empty()) {
      const size_t length = static_cast<size_t>(column_ / kCharacter);
      svg_.Text(MiddleOf(stage), top_ + 33, "note middle",
                BeginOf(absl::StrCat("reads ", absl::StrJoin(inputs, ", ")), length));
    }
    int y = top_ + kHeader;
    for (const PlanBox& box : boxes_[static_cast<size_t>(stage)]) {
      DrawBox(left + kPadding, y, box);
      y += kBoxStep;
    }
    y = top_ + kHeader + box_zone_ + kLine;
    for (const std::string& line : FactsOf(stage)) {
      svg_.Text(MiddleOf(stage), y, "middle", line);
      y += kLine;
    }
  }

  void DrawBox(int x, int y, const PlanBox& box) {
    const int width = column_ - 2 * kPadding;
    svg_.Box(x, y, width, kBox, "module");
    const std::string note = NoteOf(box);
    svg_.Text(x + kPadding, y + (note.empty() ? 22 : 15), "name", EndOf(box.label));
    if (!note.empty()) svg_.Text(x + kPadding, y + 29, "note", note);
    if (box.tied) svg_.Dot(x + width - kPadding, y + kBox / 2, "tied");
  }

  std::vector<std::string> FactsOf(int stage) const {
    const StageTotals totals = TotalsOf(plan_, stage);
    const int worker = WorkerOf(plan_, stage);
    std::vector<std::string> facts = {worker < 0 ? "" : absl::StrCat("worker ", worker),
                                      absl::StrCat(FormatCount(totals.parameters), " parameters")};
    if (const v1::StageForecast* forecast = ForecastOf(response_, stage); forecast != nullptr) {
      facts.push_back(absl::StrCat(FormatBytes(MemoryOf(*forecast)), " of memory"));
      facts.push_back(absl::StrCat(FormatShortTime(SecondsOf(*forecast)), " a micro-batch"));
    } else {
      facts.push_back(absl::StrCat(FormatBytes(totals.parameter_bytes), " of weights"));
    }
    return facts;
  }

  // Between neighbours: an arrow per value, as far as there is room.
  void DrawCrossings(int from, const Edges& edges) {
    const size_t room = static_cast<size_t>(box_zone_ / kArrowStep);
    const size_t shown = edges.size() <= room ? edges.size() : room - 1;
    for (size_t i = 0; i < shown; ++i) {
      DrawCrossing(from, static_cast<int>(i), edges[i]->value(), BytesOf(plan_, *edges[i]));
    }
    if (shown == edges.size()) return;
    int64_t bytes = 0;
    for (size_t i = shown; i < edges.size(); ++i) bytes += BytesOf(plan_, *edges[i]);
    DrawCrossing(from, static_cast<int>(shown), absl::StrCat(edges.size() - shown, " more"), bytes);
  }

  void DrawCrossing(int from, int row, const std::string& name, int64_t bytes) {
    const int left = LeftOf(from) + column_, y = top_ + kHeader + kBox / 2 + row * kArrowStep;
    svg_.Path(absl::StrCat("M", left, ",", y, " H", left + gap_ - 1), "cross", name);
    svg_.Text(left + gap_ / 2, y - 4, "value", BeginOf(name, static_cast<size_t>((gap_ - 20) / kCharacter)));
    svg_.Text(left + gap_ / 2, y + 12, "bytes", FormatBytes(bytes));
  }

  void DrawSkips() {
    const std::vector<Port> ports = PortsOf(skip_arcs_, skip_lanes_);
    for (size_t i = 0; i < skip_arcs_.size(); ++i) {
      const Edges& edges = skips_.at({skip_arcs_[i].from, skip_arcs_[i].to});
      svg_.Path(ArcPath(XOf(skip_arcs_[i].from, ports[i].from), XOf(skip_arcs_[i].to, ports[i].to), top_,
                        top_ - skip_lanes_.offset[i]),
                "skip", TitleOf(edges));
    }
    for (size_t i = 0; i < skip_arcs_.size(); ++i) {
      const Edges& edges = skips_.at({skip_arcs_[i].from, skip_arcs_[i].to});
      const int x = (XOf(skip_arcs_[i].from, ports[i].from) + XOf(skip_arcs_[i].to, ports[i].to)) / 2;
      DrawLabels(x, top_ - skip_lanes_.offset[i], "value skipped", LinesOf(edges));
    }
  }

  int XOf(int stage, double share) const { return LeftOf(stage) + static_cast<int>(share * column_); }

  static std::string TitleOf(const Edges& edges) {
    return absl::StrJoin(edges, ", ", [](std::string* out, const v1::Edge* edge) { *out += edge->value(); });
  }

  std::vector<std::string> LinesOf(const Edges& edges) const {
    const size_t shown = edges.size() <= kMostArcLines ? edges.size() : kMostArcLines - 1;
    std::vector<std::string> lines;
    int64_t rest = 0;
    for (size_t i = 0; i < edges.size(); ++i) {
      const int64_t bytes = BytesOf(plan_, *edges[i]);
      if (i < shown) {
        lines.push_back(absl::StrCat(BeginOf(edges[i]->value(), kLongestName), "  ", FormatBytes(bytes)));
      } else {
        rest += bytes;
      }
    }
    if (shown < edges.size()) lines.push_back(absl::StrCat(edges.size() - shown, " more  ", FormatBytes(rest)));
    return lines;
  }

  // Above the line at `y`.
  void DrawLabels(int x, int y, const char* look, const std::vector<std::string>& lines) {
    size_t longest = 0;
    for (const std::string& line : lines) longest = std::max(longest, line.size());
    const int height = static_cast<int>(lines.size()) * kArcLine;
    svg_.Box(x - WidthOf(longest) / 2, y - height - 3, WidthOf(longest), height + 1, "clear");
    for (size_t i = 0; i < lines.size(); ++i) {
      svg_.Text(x, y - height + static_cast<int>(i) * kArcLine + 8, look, lines[i]);
    }
  }

  void DrawTies() {
    for (size_t i = 0; i < ties_.size(); ++i) {
      const int y = bottom_ + kTieSpace + tie_lanes_.offset[i];
      std::string path;
      for (const int stage : ties_[i].stages) absl::StrAppend(&path, "M", MiddleOf(stage), ",", bottom_, " V", y, " ");
      const int first = MiddleOf(ties_[i].stages.front()), last = MiddleOf(ties_[i].stages.back());
      const std::string text = absl::StrCat("tied: ", absl::StrJoin(ties_[i].names, " = "));
      svg_.Path(absl::StrCat(path, "M", first, ",", y, " H", last), "tie", text);
      DrawLabels((first + last) / 2, y, "value tied",
                 {BeginOf(text, std::max<size_t>(40, static_cast<size_t>((last - first) / kCharacter)))});
    }
  }

  const v1::PlanJobResponse& response_;
  const v1::Plan& plan_;
  const std::vector<std::vector<PlanBox>> boxes_;   // By stage.
  const std::vector<TiedTensor> ties_;              // Over several stages.
  std::map<std::pair<int, int>, Edges> crossings_;  // By stages: between neighbours,
  std::map<std::pair<int, int>, Edges> skips_;      // and others.
  std::vector<Arc> skip_arcs_, tie_arcs_;
  Lanes skip_lanes_, tie_lanes_;
  int column_ = 0, gap_ = 0, box_zone_ = 0, top_ = 0, bottom_ = 0, width_ = 0, height_ = 0;
  Svg svg_;
};

}  // namespace

std::string DrawPlan(const v1::PlanJobResponse& response) { return Drawing(response).Draw(); }

}  // namespace gpipe::client
