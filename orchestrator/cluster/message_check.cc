#include "orchestrator/cluster/message_check.h"

#include <algorithm>
#include <cmath>
#include <iterator>
#include <string>

#include "common/field_error.h"
#include "common/gpu_health.h"
#include "common/sha256.h"
#include "google/protobuf/message.h"
#include "google/protobuf/repeated_ptr_field.h"

namespace gpipe::orchestrator {
namespace {

// Of one message; a round of a large job has a hundred thousand actions.
constexpr int kMaxParts = 4'000'000;
// Of a worker's log in one message; a worker cuts its lines itself, and sends fewer of a whole attempt.
constexpr int kMaxLogLines = 1000;
constexpr size_t kMaxLogLineBytes = 8192;
// What is kept of a worker, and told to all who watch, and what becomes the reason of a job's end.
constexpr size_t kMaxSaidBytes = 64 << 10;
constexpr size_t kMaxFailureBytes = 1 << 20;
// -1 is `does not apply`.
constexpr int64_t kNone = -1;

void CheckLeast(const char* field, int64_t value, int64_t least, FieldErrors& errors) {
  if (value < least) errors.Add(field, "is negative");
}

void CheckFinite(const char* field, double value, FieldErrors& errors) {
  if (!std::isfinite(value)) errors.Add(field, "is not a number");
}

void CheckCount(const char* field, int count, FieldErrors& errors) {
  if (count > kMaxParts) errors.Add(field, "has too many parts");
}

void CheckBytes(const char* field, const google::protobuf::Message& message, size_t most, FieldErrors& errors) {
  if (message.ByteSizeLong() > most) errors.Add(field, "is too large");
}

void CheckRefs(const char* field, const google::protobuf::RepeatedPtrField<v1::ArtifactRef>& refs,
               FieldErrors& errors) {
  CheckCount(field, refs.size(), errors);
  for (const v1::ArtifactRef& ref : refs) {
    if (!IsSha256(ref.sha256()) || ref.size() < 0) return errors.Add(field, "is no file's content");
  }
}

void Check(const v1::Activity& activity, FieldErrors& errors) {
  CheckLeast("activity.stage", activity.stage(), kNone, errors);
  CheckLeast("activity.step", activity.step(), kNone, errors);
  CheckLeast("activity.micro_batch", activity.micro_batch(), kNone, errors);
  CheckLeast("activity.waits_for", activity.waits_for(), kNone, errors);
  CheckLeast("activity.bytes_done", activity.bytes_done(), 0, errors);
  CheckLeast("activity.bytes_per_second", activity.bytes_per_second(), 0, errors);
  if (!v1::Phase_IsValid(activity.phase())) errors.Add("activity.phase", "is not a known value");
}

void Check(const v1::GpuHealth& gpu, FieldErrors& errors) {
  CheckLeast("heartbeat.use.gpu.temperature_celsius", gpu.temperature_celsius(), 0, errors);
  CheckFinite("heartbeat.use.gpu.power_watts", gpu.power_watts(), errors);
  if (gpu.power_watts() < 0) errors.Add("heartbeat.use.gpu.power_watts", "is negative");
  CheckLeast("heartbeat.use.gpu.clock_mhz", gpu.clock_mhz(), 0, errors);
  CheckLeast("heartbeat.use.gpu.max_clock_mhz", gpu.max_clock_mhz(), 0, errors);
  CheckLeast("heartbeat.use.gpu.uncorrected_errors", gpu.uncorrected_errors(), 0, errors);
  // They become labels of metrics.
  const auto known = [](const std::string& why) {
    return std::ranges::find(kGpuSlowdowns, why) != std::end(kGpuSlowdowns);
  };
  if (gpu.slowed_by_size() > static_cast<int>(std::size(kGpuSlowdowns)) ||
      !std::ranges::all_of(gpu.slowed_by(), known)) {
    errors.Add("heartbeat.use.gpu.slowed_by", "is not a known value");
  }
}

void Check(const v1::Heartbeat& heartbeat, FieldErrors& errors) {
  CheckBytes("heartbeat", heartbeat, kMaxSaidBytes, errors);
  Check(heartbeat.activity(), errors);
  CheckLeast("heartbeat.use.process_bytes", heartbeat.use().process_bytes(), 0, errors);
  CheckLeast("heartbeat.use.device_used_bytes", heartbeat.use().device_used_bytes(), 0, errors);
  CheckFinite("heartbeat.use.utilization", heartbeat.use().utilization(), errors);
  if (heartbeat.use().has_gpu()) Check(heartbeat.use().gpu(), errors);
}

void Check(const v1::RoundDone& round, FieldErrors& errors) {
  CheckLeast("progress.rounds.round", round.round(), 0, errors);
  CheckLeast("progress.rounds.step", round.step(), 0, errors);
  CheckLeast("progress.rounds.epoch", round.epoch(), 0, errors);
  CheckLeast("progress.rounds.samples", round.samples(), 0, errors);
  CheckLeast("progress.rounds.wall_nanos", round.wall_nanos(), 0, errors);
  CheckLeast("progress.rounds.data_wait_nanos", round.data_wait_nanos(), 0, errors);
  CheckFinite("progress.rounds.loss", round.loss(), errors);
  CheckFinite("progress.rounds.lr", round.lr(), errors);
  for (const v1::StageReport& stage : round.stages()) {
    CheckLeast("progress.rounds.stages.busy_nanos", stage.busy_nanos(), 0, errors);
    CheckLeast("progress.rounds.stages.peak_saved_bytes", stage.peak_saved_bytes(), 0, errors);
    CheckLeast("progress.rounds.stages.peak_allocated_bytes", stage.peak_allocated_bytes(), 0, errors);
    CheckLeast("progress.rounds.stages.peak_reserved_bytes", stage.peak_reserved_bytes(), 0, errors);
  }
  CheckCount("progress.rounds.traffic", round.traffic_size(), errors);
  for (const v1::PeerTraffic& peer : round.traffic()) {
    CheckLeast("progress.rounds.traffic.sent_bytes", peer.sent_bytes(), 0, errors);
    CheckLeast("progress.rounds.traffic.received_bytes", peer.received_bytes(), 0, errors);
    CheckLeast("progress.rounds.traffic.wait_nanos", peer.wait_nanos(), 0, errors);
  }
}

void Check(const v1::Progress& progress, FieldErrors& errors) {
  CheckLeast("progress.round", progress.round(), 0, errors);
  CheckLeast("progress.cycle", progress.cycle(), 0, errors);
  CheckCount("progress.actions", progress.actions_size(), errors);
  for (const v1::ActionDone& action : progress.actions()) {
    CheckLeast("progress.actions.nanos", action.nanos(), 0, errors);
    CheckLeast("progress.actions.start_nanos", action.start_nanos(), 0, errors);
  }
  for (const v1::RoundDone& round : progress.rounds()) Check(round, errors);
}

void Check(const v1::Evaluation& evaluation, FieldErrors& errors) {
  CheckLeast("evaluation.step", evaluation.step(), 0, errors);
  CheckLeast("evaluation.samples", evaluation.samples(), 0, errors);
  CheckFinite("evaluation.loss", evaluation.loss(), errors);
  if (!(evaluation.accuracy() >= 0 && evaluation.accuracy() <= 1)) errors.Add("evaluation.accuracy", "is no share");
}

void Check(const v1::CheckpointShard& shard, FieldErrors& errors) {
  CheckLeast("checkpoint_shard.step", shard.step(), 0, errors);
  CheckRefs("checkpoint_shard.model", shard.model(), errors);
  CheckRefs("checkpoint_shard.optimizer", shard.optimizer(), errors);
}

void Check(const v1::Log& log, FieldErrors& errors) {
  if (log.lines_size() > kMaxLogLines) errors.Add("log.lines", "has too many parts");
  for (const v1::LogLine& line : log.lines()) {
    if (line.text().size() > kMaxLogLineBytes) return errors.Add("log.lines.text", "is too long");
  }
}

}  // namespace

absl::Status CheckMessage(const v1::WorkerMessage& message) {
  FieldErrors errors;
  if (message.has_heartbeat()) Check(message.heartbeat(), errors);
  if (message.has_failed()) Check(message.failed().activity(), errors);
  CheckBytes("failed", message.failed(), kMaxFailureBytes, errors);
  CheckBytes("leaving", message.leaving(), kMaxSaidBytes, errors);
  if (message.has_progress()) Check(message.progress(), errors);
  if (message.has_evaluation()) Check(message.evaluation(), errors);
  if (message.has_checkpoint_shard()) Check(message.checkpoint_shard(), errors);
  if (message.has_log()) Check(message.log(), errors);
  if (message.has_trained()) CheckRefs("trained.model", message.trained().model(), errors);
  if (message.has_finished()) CheckRefs("finished.model", message.finished().model(), errors);
  return errors.ToStatus();
}

}  // namespace gpipe::orchestrator
