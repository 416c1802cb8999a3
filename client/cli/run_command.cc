#include "client/cli/run_command.h"

#include <algorithm>
#include <filesystem>
#include <limits>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "client/api/results.h"
#include "client/api/submission.h"
#include "client/cli/attend.h"
#include "client/cli/format.h"
#include "client/cli/output_folder.h"
#include "client/cli/private_cluster.h"
#include "client/cli/timeline_command.h"
#include "client/local/machine.h"
#include "common/artifacts/local_store.h"
#include "common/field_error.h"
#include "common/spec/client_data.h"
#include "common/status_macros.h"

namespace gpipe::client {
namespace {

namespace fs = std::filesystem;

constexpr int kDefaultWorkers = 2;
// More workers than that on a core wait for each other rather than compute.
constexpr int kWorkersPerCore = 8, kLeastWorkers = 16;
// Of a worker without a model.
constexpr int64_t kWorkerBytes = int64_t{256} << 20;

v1::Device DeviceOf(const RunOptions& options, const v1::JobSpec& spec) {
  if (options.device == "cuda") return v1::DEVICE_CUDA;
  if (options.device == "cpu") return v1::DEVICE_CPU;
  return spec.pipeline().device() == v1::DEVICE_CUDA ? v1::DEVICE_CUDA : v1::DEVICE_CPU;
}

int64_t WantedWorkers(const RunOptions& options, const v1::Pipeline& pipeline) {
  if (options.workers > 0) return options.workers;
  if (pipeline.workers() > 0) return pipeline.workers();
  if (!pipeline.split().empty()) return pipeline.split_size() + 1;
  return pipeline.balance_size() > 0 ? pipeline.balance_size() : kDefaultWorkers;
}

void Say(const GlobalOptions& global, const std::string& words) {
  if (!global.quiet) absl::FPrintF(stderr, "%s\n", words);
}

// What a reader of the failure would look at next.
void ShowLog(const LocalCluster& cluster, const v1::Job& job) {
  const std::string tail = cluster.LogTail(job.failure().worker());
  if (!tail.empty()) absl::FPrintF(stderr, "the end of the log of %s:\n%s\n", job.failure().worker(), tail);
}

// The job has perhaps read some of each content.
void WarnOfChanges(const LocalCluster& cluster) {
  const absl::Status unchanged = CheckReferences(cluster.artifacts());
  if (!unchanged.ok()) absl::FPrintF(stderr, "warning: %s, while the job ran\n", unchanged.message());
}

std::string HowToGoOn(const v1::Job& job, const RunOptions& options, const fs::path& folder) {
  if (job.checkpoint_step() == 0) return "it has no checkpoint to go on from (train.checkpoint_every)";
  return absl::StrCat("go on from step ", job.checkpoint_step(), " with: gpipe run ", options.spec, " --output ",
                      folder.string(), " --resume ", folder.string());
}

// Of the last step, as the cluster that knows it ends with the job.
absl::Status KeepTimeline(ClusterClient& client, const std::string& id, const fs::path& folder) {
  GPIPE_ASSIGN_OR_RETURN(const v1::StepTimeline timeline, client.GetTimeline(id, /*step=*/0));
  GPIPE_RETURN_IF_ERROR(WriteTimeline(timeline, folder / "timeline.svg"));
  return WriteTimeline(timeline, folder / "timeline.json");
}

// Follows the job, and fetches its results, whichever way it ended.
absl::StatusOr<ExitCode> FinishJob(PrivateCluster& cluster, const std::string& id, const GlobalOptions& global,
                                   const RunOptions& options, const OutputFolder& folder) {
  ClusterClient& client = cluster.client();
  const auto display = MakeDisplay(global.quiet ? DisplayKind::kNone : LiveOrPlain(stderr), stderr);
  GPIPE_ASSIGN_OR_RETURN(const JobProgress progress, Attend(client, id, {}, *display));
  WarnOfChanges(cluster.local());
  absl::Status pulled = folder.Clear();
  pulled.Update(PullResults(client, progress.job(), folder.path(),
                            {.continues = folder.continues(), .artifacts = cluster.local().artifacts()}));
  const ExitCode code = ReportEnd(client, progress, global, stderr);  // The job's own end comes first.
  if (code == ExitCode::kFailed) ShowLog(cluster.local(), progress.job());
  GPIPE_RETURN_IF_ERROR(pulled);
  if (options.timeline) GPIPE_RETURN_IF_ERROR(KeepTimeline(client, id, folder.path()));
  Say(global, absl::StrCat("results: ", folder.path().string()));
  if (code != ExitCode::kSucceeded) Say(global, HowToGoOn(progress.job(), options, folder.path()));
  return code;
}

absl::StatusOr<ExitCode> RunJob(PrivateCluster& cluster, const spec::SpecFile& file, const GlobalOptions& global,
                                const RunOptions& options, const OutputFolder& folder) {
  GPIPE_ASSIGN_OR_RETURN(const v1::Job job, Submit(cluster.client(), file, {options.resume, ""}));
  cluster.CancelOnInterrupt(job.id());
  absl::StatusOr<ExitCode> code = FinishJob(cluster, job.id(), global, options, folder);
  if (code.ok()) return code;
  const absl::Status why = cluster.Explain(code.status());
  // Nobody waits for the work of a job that the user gave up.
  if (absl::IsCancelled(why)) return why;
  const fs::path kept = cluster.local().StopAndKeep();
  absl::FPrintF(
      stderr, "what the job has stored stays in %s: gpipe-orchestrator --state-dir %s serves it to gpipe job pull %s\n",
      kept.string(), (kept / "state").string(), job.id());
  return why;
}

}  // namespace

absl::StatusOr<LocalClusterOptions> FitCluster(const RunOptions& options, int cores, int gpus, v1::JobSpec& spec) {
  v1::Pipeline& pipeline = *spec.mutable_pipeline();
  const int stages = pipeline.split().empty() ? pipeline.balance_size() : pipeline.split_size() + 1;
  const int layers = spec.model().sequential_size();  // Of an exported model a worker will find them.
  const int64_t most = stages > 0 ? stages : layers > 0 ? layers : std::numeric_limits<int>::max();
  LocalClusterOptions cluster;
  cluster.workers = static_cast<int>(std::min(WantedWorkers(options, pipeline), most));
  pipeline.set_workers(cluster.workers);  // The spec's own number may be another one.
  pipeline.set_device(DeviceOf(options, spec));
  spec.set_max_restarts(0);  // No other worker will come in the place of one that is lost.
  cluster.threads = options.threads > 0 ? options.threads : std::max(1, cores / cluster.workers);
  if (pipeline.device() != v1::DEVICE_CUDA) return cluster;
  if (gpus == 0) return absl::InvalidArgumentError("no GPU was found; --gpus N says how many there are");
  cluster.gpus = gpus;
  return cluster;
}

absl::Status CheckFits(int workers, int cores, int64_t free_bytes) {
  const int64_t by_cores = std::max<int64_t>(kLeastWorkers, int64_t{kWorkersPerCore} * cores);
  const int64_t by_memory = std::max<int64_t>(1, free_bytes / kWorkerBytes);
  if (workers <= std::min(by_cores, by_memory)) return absl::OkStatus();
  return absl::InvalidArgumentError(absl::StrCat(
      workers, " workers are too many for this machine: its ", cores, " cores are enough for ", by_cores, ", and its ",
      FormatBytes(free_bytes), " of free memory for ", by_memory, "; --workers N, or pipeline.workers, says how many"));
}

absl::StatusOr<ExitCode> Run(const GlobalOptions& global, const RunOptions& options) {
  GPIPE_ASSIGN_OR_RETURN(spec::SpecFile file, LoadSpec(options.spec));
  if (spec::HasClientData(file.spec)) {
    return spec::WithLines(FieldError("train.dataset.client",
                                      "is for a program that asks for rounds, as gpipe.GPipe of "
                                      "the Python package is; gpipe run asks for none"),
                           file);
  }
  std::error_code error;
  if (!options.resume.empty() && !fs::is_directory(options.resume, error)) {
    return absl::InvalidArgumentError(absl::StrCat("--resume ", options.resume,
                                                   ": is not a folder; the cluster of `gpipe "
                                                   "run` is new and knows no earlier job"));
  }
  const bool cuda = DeviceOf(options, file.spec) == v1::DEVICE_CUDA;
  const int gpus = options.gpus > 0 || !cuda ? options.gpus : CountGpus();
  GPIPE_ASSIGN_OR_RETURN(LocalClusterOptions shape, FitCluster(options, CountCores(), gpus, file.spec));
  GPIPE_RETURN_IF_ERROR(CheckFits(shape.workers, CountCores(), FreeMemory()));
  GPIPE_ASSIGN_OR_RETURN(const OutputFolder folder,
                         OutputFolder::Claim(options.output.empty() ? file.spec.name() : options.output, options.resume,
                                             options.overwrite));
  if (options.trace) shape.trace_dir = fs::absolute(folder.path() / "trace");

  PrivateCluster cluster;
  Say(global, absl::StrCat("starting ", shape.workers, " workers of ", shape.threads, " threads on ",
                           cuda ? absl::StrCat(gpus, " GPUs") : "the CPU"));
  GPIPE_RETURN_IF_ERROR(cluster.Start(shape, ShowFilesOn(stderr, global.quiet)));
  absl::StatusOr<ExitCode> code = RunJob(cluster, file, global, options, folder);
  const absl::Status copied = options.keep_logs ? cluster.local().CopyLogs(folder.path() / "logs") : absl::OkStatus();
  if (!code.ok()) return cluster.Explain(code.status());
  GPIPE_RETURN_IF_ERROR(copied);
  return code;
}

}  // namespace gpipe::client
