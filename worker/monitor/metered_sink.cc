#include "worker/monitor/metered_sink.h"

#include <string>
#include <string_view>
#include <utility>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "prometheus/gauge.h"
#include "worker/monitor/definitions.h"

namespace gpipe::worker {
namespace {

constexpr size_t kMaxCheckpoints = 8;  // Under way. There are fewer: each waits for the last one.

double Seconds(int64_t nanos) { return static_cast<double>(nanos) * 1e-9; }

std::string PhaseOf(v1::ActionKind kind) {
  switch (kind) {
    case v1::ACTION_KIND_FORWARD:
      return "forward";
    case v1::ACTION_KIND_RECOMPUTE:
      return "recompute";
    case v1::ACTION_KIND_OPTIMIZER:
      return "optimizer";
    default:
      return "backward";
  }
}

// NCCL's own words for its codes (ncclGetErrorString), as a status quotes them behind "NCCL, DOING: ".
struct NcclError {
  std::string_view words;
  std::string_view code;
};
constexpr NcclError kNcclErrors[] = {
    {"remote process exited", "ncclRemoteError"},       {"unhandled system error", "ncclSystemError"},
    {"unhandled cuda error", "ncclUnhandledCudaError"}, {"internal error", "ncclInternalError"},
    {"invalid argument", "ncclInvalidArgument"},        {"invalid usage", "ncclInvalidUsage"},
};

// Empty: it is none of NCCL's.
std::string NcclCodeOf(std::string_view message) {
  const size_t begin = message.find("NCCL, ");
  if (begin == std::string_view::npos) return "";
  for (const NcclError& error : kNcclErrors) {
    if (message.find(error.words, begin) != std::string_view::npos) return std::string(error.code);
  }
  return "other";
}

}  // namespace

MeteredSink::MeteredSink(MessageSink& sink, prometheus::Registry& registry, const Clock& clock)
    : sink_(sink),
      clock_(clock),
      failures_(registry, metric::kFailures),
      nccl_errors_(registry, metric::kNcclErrors),
      round_duration_(metrics::MakeHistogram(registry, metric::kRoundDuration, metrics::kSeconds)),
      compute_(registry, metric::kCompute),
      idle_(registry, metric::kIdle),
      saved_(prometheus::BuildGauge().Name(metric::kSaved.name).Help(metric::kSaved.help).Register(registry)),
      data_wait_(metrics::MakeCounter(registry, metric::kDataWait)),
      sent_(metrics::CounterFamily(registry, metric::kCommBytes).At({"sent"})),
      received_(metrics::CounterFamily(registry, metric::kCommBytes).At({"received"})),
      comm_seconds_(metrics::MakeCounter(registry, metric::kCommSeconds)),
      checkpoint_seconds_(metrics::MakeHistogram(registry, metric::kCheckpointSeconds, metrics::kSeconds)),
      checkpoint_bytes_(metrics::MakeCounter(registry, metric::kCheckpointBytes)) {
  for (const NcclError& error : kNcclErrors) nccl_errors_.At({std::string(error.code)});
  for (const char* consequence : {"false", "true"}) failures_.At({"INTERNAL", consequence});
}

void MeteredSink::Send(v1::WorkerMessage message) {
  switch (message.message_case()) {
    case v1::WorkerMessage::kProgress:
      Count(message.progress());
      break;
    case v1::WorkerMessage::kCheckpointShard:
      Count(message.checkpoint_shard());
      break;
    case v1::WorkerMessage::kFailed:
      Count(message.failed());
      break;
    default:
      break;
  }
  sink_.Send(std::move(message));
}

void MeteredSink::Count(const v1::Progress& progress) {
  std::map<std::pair<int, v1::ActionKind>, int64_t> computed;
  for (const v1::ActionDone& action : progress.actions()) computed[{action.stage(), action.kind()}] += action.nanos();
  for (const auto& [what, nanos] : computed) {
    compute_.At({absl::StrCat(what.first), PhaseOf(what.second)}).Increment(Seconds(nanos));
  }
  for (const v1::RoundDone& round : progress.rounds()) Count(round);
}

void MeteredSink::Count(const v1::RoundDone& round) {
  if (round.samples() == 0) return NoteCheckpoint(round);  // It is no mini-batch.
  round_duration_.Observe(Seconds(round.wall_nanos()));
  data_wait_.Increment(Seconds(round.data_wait_nanos()));
  int64_t busy = 0;
  for (const v1::StageReport& stage : round.stages()) busy += stage.busy_nanos();
  for (const v1::StageReport& stage : round.stages()) {
    idle_.At({absl::StrCat(stage.stage())}).Increment(Seconds(std::max<int64_t>(round.wall_nanos() - busy, 0)));
    saved_.Add({{"stage", absl::StrCat(stage.stage())}}).Set(static_cast<double>(stage.peak_saved_bytes()));
  }
  for (const v1::PeerTraffic& traffic : round.traffic()) {
    sent_.Increment(static_cast<double>(traffic.sent_bytes()));
    received_.Increment(static_cast<double>(traffic.received_bytes()));
    comm_seconds_.Increment(Seconds(traffic.wait_nanos()));
  }
}

// Its clock cycle is over when the parameters are being copied: the rest is done beside the rounds that follow.
void MeteredSink::NoteCheckpoint(const v1::RoundDone& round) {
  absl::MutexLock lock(&mutex_);
  checkpoint_began_[round.step()] = clock_.Now() - absl::Nanoseconds(round.wall_nanos());
  if (checkpoint_began_.size() > kMaxCheckpoints) checkpoint_began_.erase(checkpoint_began_.begin());
}

void MeteredSink::Count(const v1::CheckpointShard& shard) {
  for (const auto* files : {&shard.model(), &shard.optimizer()}) {
    for (const v1::ArtifactRef& file : *files) checkpoint_bytes_.Increment(static_cast<double>(file.size()));
  }
  absl::MutexLock lock(&mutex_);
  const auto began = checkpoint_began_.extract(shard.step());
  if (!began.empty()) checkpoint_seconds_.Observe(absl::ToDoubleSeconds(clock_.Now() - began.mapped()));
}

void MeteredSink::Count(const v1::Failed& failed) {
  const std::string code = absl::StatusCodeToString(static_cast<absl::StatusCode>(failed.status().code()));
  failures_.At({code, failed.consequence() ? "true" : "false"}).Increment();
  const std::string nccl = NcclCodeOf(failed.status().message());
  if (!nccl.empty()) nccl_errors_.At({nccl}).Increment();
}

}  // namespace gpipe::worker
