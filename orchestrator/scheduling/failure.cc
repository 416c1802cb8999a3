#include "orchestrator/scheduling/failure.h"

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "common/string_view.h"

namespace gpipe::orchestrator {
namespace {

// What each code says of the job.
struct FailureKind {
  std::string_view code;
  bool restarts;
  bool may_be_the_step;
  bool counts = true;  // As a restart.
};
constexpr FailureKind kKinds[] = {
    // The process or its machine; or a step that crashes it, or has it killed for want of memory.
    {"WORKER_LOST", true, true},
    // Somebody has stopped it, as often as he likes.
    {"WORKER_LEFT", true, false, false},
    // Networks are mended, or others are chosen.
    {"WORKER_UNREACHABLE", true, false},
    {"STALLED", true, true},
    // The same numbers again, the same files, and as much memory and disk as before.
    {"NOT_FINITE", false, true},
    {"INVALID_SPEC", false, true},
    {"MISSING_FILE", false, false},
    {kDamagedFile, false, false},
    {kOutOfMemory, false, true},
    {kDiskFull, false, false},
    // A fault of ours, or a stage's own error.
    {"INTERNAL", false, true},
};

FailureKind FailureKindOf(std::string_view code) {
  for (const FailureKind& kind : kKinds) {
    if (kind.code == code) return kind;
  }
  return {code, false, false};
}

std::string MicroBatchOf(std::string_view pass, const v1::Activity& activity) {
  std::string text(pass);
  if (activity.micro_batch() >= 0) absl::StrAppend(&text, " of micro-batch ", activity.micro_batch());
  if (activity.step() >= 0) absl::StrAppend(&text, " in step ", activity.step());
  return text;
}

std::string AfterStep(std::string_view what, const v1::Activity& activity) {
  return activity.step() >= 0 ? absl::StrCat(AbslView(what), " after step ", activity.step()) : std::string(what);
}

// `during the forward ...`, but `while preparing`.
std::string_view Connector(v1::Phase phase) {
  switch (phase) {
    case v1::PHASE_FORWARD:
    case v1::PHASE_BACKWARD:
    case v1::PHASE_OPTIMIZER:
    case v1::PHASE_CHECKPOINT:
    case v1::PHASE_EVALUATION:
      return "during the ";
    default:
      return "while ";
  }
}

}  // namespace

std::string Doing(const v1::Activity& activity) {
  switch (activity.phase()) {
    case v1::PHASE_IDLE:
      return "idle";
    case v1::PHASE_JOINING:
      return "joining its peers";
    case v1::PHASE_FORWARD:
      return MicroBatchOf("forward", activity);
    case v1::PHASE_BACKWARD:
      return MicroBatchOf("backward", activity);
    case v1::PHASE_OPTIMIZER:
      return activity.step() >= 0 ? absl::StrCat("optimizer update of step ", activity.step()) : "optimizer update";
    case v1::PHASE_CHECKPOINT:
      return AfterStep("checkpoint", activity);
    case v1::PHASE_EVALUATION:
      return AfterStep("evaluation", activity);
    case v1::PHASE_FINISHING:
      return "finishing";
    case v1::PHASE_MEASURING:
      return "measuring the links with its neighbours";
    default:
      return "preparing";
  }
}

std::string_view FailureCode(const absl::Status& status) {
  switch (status.code()) {
    case absl::StatusCode::kResourceExhausted:
      if (absl::StrContains(status.message(), "disk full")) return kDiskFull;
      if (absl::StrContains(status.message(), "out of memory")) return kOutOfMemory;
      return "INTERNAL";
    case absl::StatusCode::kNotFound:
      return "MISSING_FILE";
    case absl::StatusCode::kInvalidArgument:
      return "INVALID_SPEC";
    case absl::StatusCode::kOutOfRange:
      return "NOT_FINITE";
    case absl::StatusCode::kDataLoss:
      return kDamagedFile;
    case absl::StatusCode::kDeadlineExceeded:
      return "STALLED";
    // The connection of two workers that both live.
    case absl::StatusCode::kUnavailable:
      return "WORKER_UNREACHABLE";
    default:
      return "INTERNAL";
  }
}

bool IsRestarted(std::string_view code) { return FailureKindOf(code).restarts; }

bool CountsAsRestart(std::string_view code) { return FailureKindOf(code).counts; }

bool MayBeTheStep(std::string_view code) { return FailureKindOf(code).may_be_the_step; }

v1::Failure WorkerFailure(std::string_view code, std::string_view worker, int stage, const v1::Activity& activity,
                          std::string_view what, std::string_view why) {
  v1::Failure failure;
  failure.set_code(std::string(code));
  failure.set_worker(std::string(worker));
  failure.set_stage(stage);
  failure.set_doing(Doing(activity));
  failure.set_message(absl::StrCat("worker ", AbslView(worker), " (stage ", stage, ") ", AbslView(what), " ",
                                   AbslView(Connector(activity.phase())), failure.doing(), ": ", AbslView(why)));
  return failure;
}

v1::Failure PlainFailure(const absl::Status& status) {
  v1::Failure failure;
  failure.set_code(std::string(FailureCode(status)));
  failure.set_stage(-1);
  failure.set_message(std::string(status.message()));
  return failure;
}

}  // namespace gpipe::orchestrator
