#include "client/cli/timeline_output.h"

#include <algorithm>
#include <map>
#include <optional>
#include <vector>

#include "absl/strings/ascii.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "client/cli/format.h"
#include "common/plan/convert.h"
#include "nlohmann/json.hpp"

namespace gpipe::client {
namespace {

using Json = nlohmann::ordered_json;

constexpr int kColumns = 100;  // Of a row of letters.

// `forward`
std::string KindWord(v1::ActionKind kind) {
  const std::string& name = v1::ActionKind_Name(kind);
  return name.empty() ? "?" : absl::AsciiStrToLower(name.substr(sizeof("ACTION_KIND_") - 1));
}

int64_t EndOf(const v1::ActionDone& action) { return action.start_nanos() + action.nanos(); }

std::string WorkerName(const v1::StepTimeline& timeline, int worker) {
  return worker >= 0 && worker < timeline.workers_size() ? timeline.workers(worker) : "?";
}

// Each letter is what the worker did in the middle of its share of the step; a dot is a bubble.
std::string LettersOf(const v1::StepTimeline& timeline, int worker, int64_t span) {
  std::string letters(kColumns, '.');
  for (const v1::ActionDone& action : timeline.actions()) {
    if (WorkerOf(timeline, action.stage()) != worker) continue;
    const char letter = ActionName(action)[0];
    for (int column = 0; column < kColumns; ++column) {
      const double middle = (column + 0.5) * static_cast<double>(span) / kColumns;
      const auto from = static_cast<double>(action.start_nanos()), to = static_cast<double>(EndOf(action));
      if (from <= middle && middle < to) letters[static_cast<size_t>(column)] = letter;
    }
  }
  return letters;
}

// Seconds by stage and kind.
using Times = std::map<int, std::map<v1::ActionKind, double>>;
Times TimesOf(const v1::StepTimeline& timeline) {
  Times times;
  for (const v1::ActionDone& action : timeline.actions()) {
    times[action.stage()][action.kind()] += static_cast<double>(action.nanos()) * 1e-9;
  }
  return times;
}

std::string StageTable(const v1::StepTimeline& timeline) {
  Table table({">STAGE", "WORKER", ">FORWARD", ">BACKWARD", ">RECOMPUTE", ">OPTIMIZER", ">BUSY"});
  for (auto& [stage, times] : TimesOf(timeline)) {
    double busy = 0;
    for (const auto& [kind, seconds] : times) busy += seconds;
    const auto time = [&times = times](v1::ActionKind kind) {
      const auto found = times.find(kind);
      return found == times.end() ? std::string() : FormatShortTime(found->second);
    };
    const double share = timeline.step_seconds() > 0 ? busy / timeline.step_seconds() : 0;
    table.Add({absl::StrCat(stage), WorkerName(timeline, WorkerOf(timeline, stage)), time(v1::ACTION_KIND_FORWARD),
               time(v1::ACTION_KIND_BACKWARD), time(v1::ACTION_KIND_RECOMPUTE), time(v1::ACTION_KIND_OPTIMIZER),
               FormatPercent(share)});
  }
  return table.Render();
}

Json NameEvent(const char* what, int process, int thread, const std::string& name) {
  Json event = {{"name", what}, {"ph", "M"}, {"pid", process}, {"args", {{"name", name}}}};
  if (thread >= 0) event["tid"] = thread;
  return event;
}

Json EventOf(const v1::StepTimeline& timeline, const v1::ActionDone& action) {
  return {{"name", ActionName(action)},
          {"cat", KindWord(action.kind())},
          {"ph", "X"},
          {"ts", static_cast<double>(action.start_nanos()) * 1e-3},
          {"dur", static_cast<double>(action.nanos()) * 1e-3},
          {"pid", std::max(0, WorkerOf(timeline, action.stage()))},
          {"tid", action.stage()},
          {"args", {{"stage", action.stage()}, {"micro_batch", action.micro_batch()}, {"cycle", action.cycle()}}}};
}

}  // namespace

int WorkerOf(const v1::StepTimeline& timeline, int stage) {
  return stage >= 0 && stage < timeline.stage_worker_size() ? timeline.stage_worker(stage) : -1;
}

int64_t SpanNanos(const v1::StepTimeline& timeline) {
  int64_t span = std::max<int64_t>(1, static_cast<int64_t>(timeline.step_seconds() * 1e9));
  for (const v1::ActionDone& action : timeline.actions()) span = std::max(span, EndOf(action));
  return span;
}

std::string ActionName(const v1::ActionDone& action) {
  const std::optional<pipeline::ActionKind> kind = FromProto(action.kind());
  if (!kind) return "?";
  const std::string letters(pipeline::KindName(*kind));
  return action.micro_batch() < 0 ? letters : absl::StrCat(letters, action.micro_batch());
}

std::string TimelineTitle(const v1::StepTimeline& timeline) {
  std::string title =
      absl::StrCat("step ", timeline.step(), " of ", timeline.job(), ": ", FormatShortTime(timeline.step_seconds()),
                   ", bubble ", FormatPercent(timeline.bubble_share()));
  if (timeline.has_forecast()) {
    absl::StrAppend(&title, ", forecast ", FormatPercent(timeline.forecast().bubble_share()));
  }
  return absl::StrCat(title, ", ideal ", FormatPercent(timeline.ideal_bubble_share()));
}

std::string RenderTimeline(const v1::StepTimeline& timeline) {
  std::string text = absl::StrCat(TimelineTitle(timeline), "\nsteps ", timeline.first_kept(), " to ",
                                  timeline.last_kept(), " are kept\n\n");
  size_t width = 0;
  for (const std::string& name : timeline.workers()) width = std::max(width, name.size());
  const int64_t span = SpanNanos(timeline);
  for (int worker = 0; worker < timeline.workers_size(); ++worker) {
    absl::StrAppend(&text, absl::StrFormat("%-*s |", static_cast<int>(width), timeline.workers(worker)),
                    LettersOf(timeline, worker, span), "|\n");
  }
  return absl::StrCat(text, "\n", StageTable(timeline));
}

std::string TraceOf(const v1::StepTimeline& timeline) {
  Json events = Json::array();
  for (int worker = 0; worker < timeline.workers_size(); ++worker) {
    events.push_back(NameEvent("process_name", worker, -1, timeline.workers(worker)));
  }
  for (int stage = 0; stage < timeline.stage_worker_size(); ++stage) {
    events.push_back(NameEvent("thread_name", timeline.stage_worker(stage), stage, absl::StrCat("stage ", stage)));
  }
  for (const v1::ActionDone& action : timeline.actions()) events.push_back(EventOf(timeline, action));
  Json about = {{"job", timeline.job()},
                {"attempt", timeline.attempt()},
                {"step", timeline.step()},
                {"step_seconds", timeline.step_seconds()},
                {"bubble_share", timeline.bubble_share()},
                {"ideal_bubble_share", timeline.ideal_bubble_share()}};
  if (timeline.has_forecast()) about["forecast_bubble_share"] = timeline.forecast().bubble_share();
  const Json trace = {{"displayTimeUnit", "ms"}, {"otherData", std::move(about)}, {"traceEvents", std::move(events)}};
  return trace.dump(-1, ' ', false, Json::error_handler_t::replace) + "\n";
}

}  // namespace gpipe::client
