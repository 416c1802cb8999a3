#include "client/api/results.h"

#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <set>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "client/api/json.h"
#include "common/artifacts/layout.h"
#include "common/artifacts/transfer.h"
#include "common/file.h"
#include "common/link_or_copy.h"
#include "common/sha256.h"
#include "common/status_macros.h"
#include "google/protobuf/util/json_util.h"
#include "nlohmann/json.hpp"

namespace gpipe::client {
namespace {

namespace fs = std::filesystem;
using Json = nlohmann::ordered_json;

absl::Status MakeFolder(const fs::path& folder) {
  std::error_code error;
  fs::create_directories(folder, error);
  return error ? ErrnoStatus(error.value(), "cannot make folder", folder) : absl::OkStatus();
}

// Names come from the orchestrator; one that leads out of the folder is not followed.
bool StaysInside(const fs::path& path) {
  const auto leads_up = [](const fs::path& part) { return part == ".."; };
  return !path.empty() && path.is_relative() && std::none_of(path.begin(), path.end(), leads_up);
}

// What the job is for comes before its checkpoints, should the disk be full, and a checkpoint's manifest behind its
// files.
int Rank(const v1::ResultFile& file) {
  const fs::path path = file.path();
  if (!path.has_parent_path()) return 0;
  return path.filename() == "manifest.json" ? 2 : 1;
}

// False: it does not lie there, or cannot be had from there.
bool LinkFile(const fs::path& artifacts, const v1::ArtifactRef& ref, const fs::path& path) {
  if (artifacts.empty() || !IsSha256(ref.sha256())) return false;
  const fs::path content = ArtifactPath(artifacts, ref.sha256());
  std::error_code error;
  if (fs::file_size(content, error) != static_cast<uintmax_t>(ref.size()) || error) return false;
  const absl::StatusOr<LinkKind> linked = LinkOrCopyFile(content, path, HardLinks::kIfOnlyName);
  if (!linked.ok()) return false;
  if (*linked == LinkKind::kCopy && !SyncPath(path).ok()) return false;
  return SyncPath(path.parent_path()).ok();
}

absl::Status PullFile(ClusterClient& client, const v1::ResultFile& file, const fs::path& folder,
                      const fs::path& artifacts) {
  if (!StaysInside(file.path())) {
    return absl::DataLossError(absl::StrCat("the orchestrator names a result '", file.path(), "' outside its folder"));
  }
  const fs::path path = folder / file.path();
  GPIPE_RETURN_IF_ERROR(MakeFolder(path.parent_path()));
  if (LinkFile(artifacts, file.artifact(), path)) return absl::OkStatus();
  return DownloadFile(client.artifacts(), file.artifact(), path, client.transfer_options());
}

// A job that runs may have made a newer checkpoint meanwhile, and one before it gone (train.keep_checkpoints).
bool HasGone(ClusterClient& client, const std::string& job, const v1::ResultFile& file) {
  const absl::StatusOr<v1::Job> now = client.GetJob(job);
  return now.ok() && fs::path(file.path()).has_parent_path() &&
         std::ranges::none_of(now->results(), [&](const auto& other) { return other.path() == file.path(); });
}

// What was fetched of a checkpoint before it had gone.
absl::Status RemoveUnlessWhole(const fs::path& checkpoint) {
  std::error_code error;
  if (fs::exists(checkpoint / "manifest.json", error)) return absl::OkStatus();
  fs::remove_all(checkpoint, error);
  return error ? ErrnoStatus(error.value(), "cannot remove", checkpoint) : absl::OkStatus();
}

absl::Status PullFiles(ClusterClient& client, const v1::Job& job, const fs::path& folder, const fs::path& artifacts) {
  std::vector<v1::ResultFile> files(job.results().begin(), job.results().end());
  std::ranges::stable_sort(files, {}, Rank);
  for (const v1::ResultFile& file : files) {
    const absl::Status pulled = PullFile(client, file, folder, artifacts);
    if (absl::IsNotFound(pulled) && HasGone(client, job.id(), file)) {
      GPIPE_RETURN_IF_ERROR(RemoveUnlessWhole((folder / file.path()).parent_path()));
      continue;
    }
    GPIPE_RETURN_IF_ERROR(pulled);
  }
  return absl::OkStatus();
}

template <typename Rows, typename ToLine>
absl::Status WriteLines(const fs::path& path, std::string text, const Rows& rows, ToLine to_line) {
  for (const auto& row : rows) absl::StrAppend(&text, to_line(row), "\n");
  return WriteFileAtomically(path, text);
}

// The lines of an earlier job's file that are about steps before `end`; a missing file has none.
absl::StatusOr<std::string> LinesBefore(int64_t end, const fs::path& path) {
  const absl::StatusOr<std::string> text = ReadFile(path);
  if (absl::IsNotFound(text.status())) return std::string();
  GPIPE_RETURN_IF_ERROR(text.status());
  std::string kept;
  for (const absl::string_view line : absl::StrSplit(*text, '\n', absl::SkipEmpty())) {
    const Json parsed = Json::parse(line.begin(), line.end(), nullptr, /*allow_exceptions=*/false);
    if (!parsed.is_object() || !parsed.contains("step") || !parsed["step"].is_number_integer()) continue;
    if (parsed["step"].get<int64_t>() < end) absl::StrAppend(&kept, line, "\n");
  }
  return kept;
}

absl::Status Remove(const fs::path& path) {
  std::error_code error;
  fs::remove(path, error);
  return error ? ErrnoStatus(error.value(), "cannot remove", path) : absl::OkStatus();
}

absl::Status WriteMetrics(const v1::ListJobMetricsResponse& metrics, const fs::path& folder, bool continues) {
  std::string steps, evaluations;
  if (continues && !metrics.steps().empty()) {
    const int64_t first = metrics.steps(0).step();
    GPIPE_ASSIGN_OR_RETURN(steps, LinesBefore(first, folder / "metrics.jsonl"));
    GPIPE_ASSIGN_OR_RETURN(evaluations, LinesBefore(first, folder / "evaluation.jsonl"));
  }
  GPIPE_RETURN_IF_ERROR(WriteLines(folder / "metrics.jsonl", steps, metrics.steps(), MetricsLine));
  if (evaluations.empty() && metrics.evaluations().empty()) {
    return Remove(folder / "evaluation.jsonl");  // One of an earlier run would pass for this job's.
  }
  return WriteLines(folder / "evaluation.jsonl", evaluations, metrics.evaluations(), EvaluationLine);
}

// An earlier run's model or outputs would pass for those of a job that succeeded without, and shards for those of a job
// with other ones. A job that failed takes nothing away but what an earlier one had in checkpoints that it replaces;
// other checkpoints are for the user to remove.
absl::Status RemoveEarlierResults(const v1::Job& job, const fs::path& folder) {
  std::set<fs::path> own, replaced, earlier;
  for (const v1::ResultFile& file : job.results()) {
    own.insert(file.path());
    replaced.insert(fs::path(file.path()).parent_path());
  }
  replaced.erase(fs::path());
  if (job.state() == v1::Job::STATE_SUCCEEDED) {
    replaced.insert(fs::path());
    earlier = {"model.safetensors", "outputs.safetensors"};
  }
  const v1::Job before = ReadJob(folder);
  for (const v1::ResultFile& file : before.results()) {
    if (StaysInside(file.path())) earlier.insert(file.path());
  }
  for (const fs::path& path : earlier) {
    if (replaced.contains(path.parent_path()) && !own.contains(path)) GPIPE_RETURN_IF_ERROR(Remove(folder / path));
  }
  return absl::OkStatus();
}

}  // namespace

std::string MetricsLine(const v1::StepMetrics& step) {
  Json line = {{"step", step.step()}, {"epoch", step.epoch()}};
  if (step.has_loss()) line["loss"] = step.loss();
  if (step.has_lr()) line["lr"] = step.lr();
  if (step.has_grad_norm()) line["grad_norm"] = step.grad_norm();
  line["step_seconds"] = step.step_seconds();
  line["samples_per_second"] = step.samples_per_second();
  line["bubble_share"] = step.bubble_share();
  line["data_wait_share"] = step.data_wait_share();
  if (step.stage_busy_size() > 0) line["stage_busy"] = step.stage_busy();
  if (step.stage_peak_saved_bytes_size() > 0) line["stage_peak_saved_bytes"] = step.stage_peak_saved_bytes();
  if (step.stage_peak_reserved_bytes_size() > 0) {
    line["stage_peak_allocated_bytes"] = step.stage_peak_allocated_bytes();
    line["stage_peak_reserved_bytes"] = step.stage_peak_reserved_bytes();
  }
  return line.dump();
}

std::string EvaluationLine(const v1::EvaluationMetrics& evaluation) {
  Json line = {{"step", evaluation.step()}, {"loss", evaluation.loss()}};
  if (evaluation.has_accuracy()) line["accuracy"] = evaluation.accuracy();
  line["samples"] = evaluation.samples();
  return line.dump();
}

v1::Job ReadJob(const fs::path& folder) {
  v1::Job job;
  google::protobuf::util::JsonParseOptions lenient;
  lenient.ignore_unknown_fields = true;
  const std::string text = ReadFile(folder / "job.json").value_or("");
  return google::protobuf::util::JsonStringToMessage(text, &job, lenient).ok() ? job : v1::Job();
}

absl::Status PrepareFolder(const fs::path& folder) {
  GPIPE_RETURN_IF_ERROR(MakeFolder(folder));
  return access(folder.c_str(), W_OK | X_OK) == 0 ? absl::OkStatus() : ErrnoStatus(errno, "cannot write to", folder);
}

absl::Status PullResults(ClusterClient& client, const v1::Job& job, const fs::path& folder,
                         const PullOptions& options) {
  GPIPE_RETURN_IF_ERROR(PrepareFolder(folder));
  GPIPE_ASSIGN_OR_RETURN(const v1::ListJobMetricsResponse metrics, client.ListJobMetrics(job.id()));
  GPIPE_RETURN_IF_ERROR(WriteMetrics(metrics, folder, options.continues));
  GPIPE_RETURN_IF_ERROR(RemoveEarlierResults(job, folder));
  GPIPE_RETURN_IF_ERROR(PullFiles(client, job, folder, options.artifacts));
  return WriteFileAtomically(folder / "job.json", absl::StrCat(ToJson(job, JsonStyle::kDocument), "\n"));
}

}  // namespace gpipe::client
