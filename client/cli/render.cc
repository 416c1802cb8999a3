#include "client/cli/render.h"

#include <algorithm>
#include <cmath>
#include <optional>

#include "absl/strings/ascii.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "absl/strings/str_join.h"
#include "absl/strings/str_replace.h"
#include "absl/strings/str_split.h"
#include "client/api/job_states.h"
#include "client/cli/format.h"
#include "common/plan/convert.h"

namespace gpipe::client {
namespace {

constexpr char kBold[] = "1";
constexpr char kRed[] = "31";
constexpr char kGreen[] = "32";
constexpr char kYellow[] = "33";
constexpr char kNoColor[] = "";

// One line of the terminal, cut at its width; colours take no width.
class Line {
 public:
  explicit Line(const RenderStyle& style) : left_(std::max(1, style.width)), color_(style.color) {}

  Line& Add(const std::string& text, const char* color = kNoColor) {
    const std::string shown = text.substr(0, static_cast<size_t>(left_));
    left_ -= static_cast<int>(shown.size());
    const bool colored = color_ && *color != '\0' && !shown.empty();
    absl::StrAppend(&text_, colored ? absl::StrCat("\x1b[", color, "m", shown, "\x1b[0m") : shown);
    return *this;
  }
  std::string Take() { return std::move(text_); }

 private:
  int left_;
  const bool color_;
  std::string text_;
};

const char* ColorOf(v1::Job::State state) {
  switch (state) {
    case v1::Job::STATE_SUCCEEDED:
      return kGreen;
    case v1::Job::STATE_FAILED:
      return kRed;
    case v1::Job::STATE_PAUSED:
    case v1::Job::STATE_CANCELLED:
      return kYellow;
    default:
      return kBold;
  }
}

std::string Position(const JobProgress& progress) {
  return absl::StrCat(progress.unit(), " ", progress.done(), "/", progress.total());
}

std::vector<std::string> MetricWords(const JobProgress& progress) {
  std::vector<std::string> words;
  if (!progress.step().has_value()) return words;
  const v1::StepMetrics& step = *progress.step();
  if (step.has_loss()) words.push_back(absl::StrCat("loss ", FormatLoss(step.loss())));
  if (step.has_lr()) words.push_back(absl::StrFormat("lr %.3g", step.lr()));
  if (step.has_grad_norm()) words.push_back(absl::StrFormat("grad norm %.3g", step.grad_norm()));
  words.push_back(absl::StrFormat("%.0f samples/s", step.samples_per_second()));
  return words;
}

std::string BarLine(const JobProgress& progress, const RenderStyle& style, absl::Time now) {
  const auto eta = progress.eta(now);
  const std::string words =
      absl::StrCat("  ", FormatPercent(progress.share()), "  ", Position(progress), "  ",
                   FormatClock(progress.elapsed(now)), eta.has_value() ? "  eta " + FormatClock(*eta) : "");
  const int width = std::clamp(style.width - static_cast<int>(words.size()) - 2, 8, 50);
  return Line(style).Add(Bar(progress.share(), width)).Add(words).Take();
}

std::string WorkerOf(const v1::Job& job, int stage) {
  const int worker = stage < job.stage_worker_size() ? job.stage_worker(stage) : -1;
  return worker >= 0 && worker < job.workers_size() ? job.workers(worker) : "?";
}

std::string DoingOf(const v1::Job& job, int stage) {
  const int worker = stage < job.stage_worker_size() ? job.stage_worker(stage) : -1;
  return worker >= 0 && worker < job.activities_size() ? FormatActivity(job.activities(worker)) : "";
}

std::string StageLine(const JobProgress& progress, int stage, const RenderStyle& style) {
  Line line(style);
  line.Add(absl::StrFormat("stage %-2d %-10s ", stage, WorkerOf(progress.job(), stage)));
  const auto& step = progress.step();
  // A job's activities come with its changes of state, and while files are moved: news before the first step, and
  // history after it.
  if (!step.has_value()) return line.Add(" ").Add(DoingOf(progress.job(), stage)).Take();
  if (stage < step->stage_busy_size()) {
    const double busy = step->stage_busy(stage);
    line.Add(Bar(busy, 20), kGreen).Add(absl::StrFormat(" %4s busy", FormatPercent(busy)));
  }
  return line.Take();
}

double BusySeconds(const v1::StageDone& stage) {
  return stage.forward() + stage.backward() + stage.recompute() + stage.optimizer();
}

// Of the worker: what its stages computed, and the rest.
double StepSeconds(const v1::StagesDone& stages, const std::string& worker) {
  double seconds = 0, idle = 0;
  for (const v1::StageDone& stage : stages.stages()) {
    if (stage.worker() != worker) continue;
    seconds += BusySeconds(stage);
    idle = stage.idle();
  }
  return seconds + idle;
}

// Bytes a second.
struct StageRates {
  int64_t sent = 0;
  int64_t received = 0;
};
StageRates RatesOf(const v1::StageDone& stage, double seconds) {
  if (seconds <= 0) return {};
  StageRates bytes;
  for (const v1::PeerTraffic& peer : stage.traffic()) {
    bytes.sent += peer.sent_bytes();
    bytes.received += peer.received_bytes();
  }
  return {static_cast<int64_t>(static_cast<double>(bytes.sent) / seconds),
          static_cast<int64_t>(static_cast<double>(bytes.received) / seconds)};
}

// `w1 23%, w0 2%`, of those that it waited for at least half a percent of the step.
std::string WaitsOf(const v1::Job& job, const v1::StageDone& stage, double seconds) {
  std::vector<std::string> words;
  for (const v1::PeerTraffic& peer : stage.traffic()) {
    const double share = seconds > 0 ? static_cast<double>(peer.wait_nanos()) * 1e-9 / seconds : 0;
    if (share < 0.005) continue;
    const bool known = peer.worker() >= 0 && peer.worker() < job.workers_size();
    words.push_back(absl::StrCat(known ? job.workers(peer.worker()) : "?", " ", FormatPercent(share)));
  }
  return absl::StrJoin(words, ", ");
}

std::string StateLine(const v1::Job& job, const RenderStyle& style) {
  Line line(style);
  line.Add(job.id(), kBold).Add("  ").Add(StateName(job.state()), ColorOf(job.state()));
  if (job.attempt() > 1) line.Add(absl::StrCat("  attempt ", job.attempt()));
  if (job.state() != v1::Job::STATE_RUNNING && !job.reason().empty()) line.Add("  ").Add(job.reason());
  return line.Take();
}

std::string KindLetter(v1::ActionKind kind) {
  const std::optional<pipeline::ActionKind> known = FromProto(kind);
  return known ? std::string(pipeline::KindName(*known)) : "?";
}

std::string RenderFailure(const v1::Job& job) {
  const v1::Failure& failure = job.failure();
  std::string text = absl::StrCat(job.id(), " FAILED: ", failure.code().empty() ? job.reason() : failure.code());
  if (!failure.worker().empty()) absl::StrAppend(&text, "\n  worker ", failure.worker(), ", stage ", failure.stage());
  if (!failure.doing().empty()) absl::StrAppend(&text, "\n  while ", failure.doing());
  if (!failure.message().empty()) absl::StrAppend(&text, "\n  ", failure.message());
  if (failure.consequences_size() > 0) absl::StrAppend(&text, "\n  consequences:");
  for (const std::string& consequence : failure.consequences()) absl::StrAppend(&text, "\n    ", consequence);
  return text;
}

std::string Took(const v1::Job& job) {
  if (!job.has_start_time() || !job.has_end_time()) return "";
  const auto time = [](const google::protobuf::Timestamp& at) {
    return absl::FromUnixSeconds(at.seconds()) + absl::Nanoseconds(at.nanos());
  };
  return absl::StrCat(" in ", FormatSeconds(time(job.end_time()) - time(job.start_time())));
}

}  // namespace

std::vector<std::string> RenderLive(const JobProgress& progress, const RenderStyle& style, absl::Time now) {
  const v1::Job& job = progress.job();
  std::vector<std::string> lines = {StateLine(job, style)};
  if (progress.total() > 0) lines.push_back(BarLine(progress, style, now));
  std::vector<std::string> words = MetricWords(progress);
  if (progress.step().has_value()) words.push_back("bubble " + FormatPercent(progress.step()->bubble_share()));
  if (!words.empty()) lines.push_back(Line(style).Add(absl::StrJoin(words, "  ")).Take());
  if (progress.evaluation().has_value()) {
    lines.push_back(Line(style).Add(RenderEvaluation(*progress.evaluation())).Take());
  }
  if (progress.stages().has_value()) {
    for (const std::string& line : RenderStages(job, *progress.stages())) lines.push_back(Line(style).Add(line).Take());
    return lines;
  }
  for (int stage = 0; stage < job.stage_worker_size(); ++stage) lines.push_back(StageLine(progress, stage, style));
  return lines;
}

std::string RenderProgressLine(const JobProgress& progress, absl::Time now) {
  std::vector<std::string> words = {Position(progress), FormatPercent(progress.share())};
  const std::vector<std::string> metrics = MetricWords(progress);
  words.insert(words.end(), metrics.begin(), metrics.end());
  if (const auto eta = progress.eta(now)) words.push_back("eta " + FormatClock(*eta));
  return absl::StrJoin(words, "  ");
}

std::vector<std::string> RenderStages(const v1::Job& job, const v1::StagesDone& stages) {
  Table table({">STAGE", "WORKER", ">STEP", ">BUSY", ">FORWARD", ">BACKWARD", ">RECOMPUTE", ">BUBBLE", ">SENT/s",
               ">GOT/s", ">SAVED", "WAITS FOR"});
  for (const v1::StageDone& stage : stages.stages()) {
    const double seconds = StepSeconds(stages, stage.worker());
    const auto share = [seconds](double part) { return FormatPercent(seconds > 0 ? part / seconds : 0); };
    const StageRates rates = RatesOf(stage, seconds);
    table.Add({absl::StrCat(stage.stage()), stage.worker(), FormatShortTime(seconds), share(BusySeconds(stage)),
               share(stage.forward()), share(stage.backward()), share(stage.recompute()), share(stage.idle()),
               FormatBytes(rates.sent), FormatBytes(rates.received), FormatBytes(stage.peak_saved_bytes()),
               WaitsOf(job, stage, seconds)});
  }
  std::vector<std::string> lines = absl::StrSplit(table.Render(), '\n', absl::SkipEmpty());
  return lines;
}

std::string RenderActivity(const v1::Job& job, const v1::WorkerActivity& activity) {
  const int worker = activity.worker();
  const std::string name = worker >= 0 && worker < job.workers_size() ? job.workers(worker) : "?";
  return absl::StrCat(name, " ", FormatActivity(activity.activity()));
}

std::string RenderEvaluation(const v1::EvaluationMetrics& evaluation) {
  std::string text = absl::StrCat("step ", evaluation.step(), "  evaluation: loss ", FormatLoss(evaluation.loss()));
  if (evaluation.has_accuracy()) absl::StrAppendFormat(&text, ", accuracy %.1f%%", evaluation.accuracy() * 100);
  return text;
}

std::string RenderState(const v1::Job& job) {
  std::string text = absl::StrCat(job.id(), " ", StateName(job.state()));
  if (job.state() == v1::Job::STATE_RUNNING) absl::StrAppend(&text, " on ", absl::StrJoin(job.workers(), ", "));
  if (job.attempt() > 1) absl::StrAppend(&text, ", attempt ", job.attempt());
  if (!job.reason().empty()) absl::StrAppend(&text, ": ", job.reason());
  return text;
}

std::string RenderCycle(const v1::CycleDone& cycle) {
  std::string text = absl::StrCat("round ", cycle.round(), " cycle ", cycle.cycle());
  std::vector<v1::ActionDone> actions(cycle.actions().begin(), cycle.actions().end());
  const auto by_stage = [](const v1::ActionDone& a, const v1::ActionDone& b) { return a.stage() < b.stage(); };
  std::stable_sort(actions.begin(), actions.end(), by_stage);  // They come in the order of the workers' reports.
  for (const v1::ActionDone& action : actions) {
    absl::StrAppend(&text, "  stage", action.stage(), " ", KindLetter(action.kind()));
    if (action.micro_batch() >= 0) absl::StrAppend(&text, action.micro_batch());
  }
  return text;
}

std::string RenderWarning(const std::string& message) { return absl::StrCat("warning: ", message); }

std::string RenderEvent(const v1::JobEvent& event) {
  return absl::StrCat(
      FormatTime(event.time()), "  ", absl::StrFormat("%-9s", StateName(event.state())), "  ",
      absl::StrFormat("%-12s", event.actor()), "  ",
      absl::StrReplaceAll(event.warning() ? RenderWarning(event.message()) : event.message(), {{"\n", "\n  | "}}));
}

std::string RenderEnd(const JobProgress& progress) {
  const v1::Job& job = progress.job();
  if (job.state() == v1::Job::STATE_FAILED) return RenderFailure(job);
  std::string text = absl::StrCat(job.id(), " ", StateName(job.state()), ": ", Position(progress), Took(job));
  if (progress.step().has_value() && progress.step()->has_loss()) {
    absl::StrAppend(&text, ", loss ", FormatLoss(progress.step()->loss()));
  }
  if (progress.evaluation().has_value() && progress.evaluation()->has_accuracy()) {
    absl::StrAppendFormat(&text, ", test accuracy %.1f%%", progress.evaluation()->accuracy() * 100);
  }
  return text;
}

}  // namespace gpipe::client
