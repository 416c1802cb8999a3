#include "client/api/submission.h"

#include <algorithm>
#include <set>

#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "client/api/data_paths.h"
#include "client/api/file_delivery.h"
#include "client/api/results.h"
#include "common/data/pattern.h"
#include "common/error_reason.h"
#include "common/field_error.h"
#include "common/file.h"
#include "common/random_id.h"
#include "common/safetensors/index.h"
#include "common/spec/validator.h"
#include "common/status_macros.h"
#include "nlohmann/json.hpp"

namespace gpipe::client {
namespace {

namespace fs = std::filesystem;
using FileMap = google::protobuf::Map<std::string, v1::ArtifactRef>;

constexpr absl::Duration kRetryFor = absl::Seconds(15);
constexpr char kWeights[] = "model.weights";
constexpr char kManifest[] = "manifest.json";
constexpr size_t kMaxManifestBytes = 1 << 20;

std::string WhyUnreadable(const fs::path& path) {
  std::error_code error;
  const fs::file_status status = fs::status(path, error);
  if (!fs::exists(status)) return absl::StrCat("there is no file ", path.string());
  if (!fs::is_regular_file(status)) return absl::StrCat(path.string(), " is not a file");
  return "";
}

absl::Status CheckReadable(const spec::SpecFile& file, const std::vector<spec::NamedFile>& files) {
  FieldErrors errors;
  for (const spec::NamedFile& named : files) {
    const std::string problem = WhyUnreadable(PathOf(file, named.path));
    if (!problem.empty()) errors.Add(named.field, problem);
  }
  return errors.ToStatus();
}

// Those that an index of weights names too.
absl::StatusOr<std::vector<spec::NamedFile>> AllFilesOf(const spec::SpecFile& file) {
  std::vector<spec::NamedFile> files = spec::FilesOf(file.spec);
  AddTokenIndices(file, files);
  const std::string& weights = file.spec.model().weights();
  if (!safetensors::IsIndex(weights) || data::IsShared(weights)) return files;
  const fs::path path = PathOf(file, weights);
  const absl::StatusOr<safetensors::WeightMap> index = safetensors::ReadIndex(path, weights);
  if (!index.ok()) return FieldError(kWeights, absl::StrCat(path.string(), ": ", index.status().message()));
  for (const std::string& shard : safetensors::ShardsOf(*index)) files.push_back({kWeights, shard});
  return files;
}

// Weights may be given as the folder that Hugging Face's save_pretrained() writes.
absl::Status FindWeightsInFolder(spec::SpecFile& file) {
  std::string& weights = *file.spec.mutable_model()->mutable_weights();
  std::error_code error;
  if (weights.empty() || !fs::is_directory(PathOf(file, weights), error)) return absl::OkStatus();
  for (const char* name : {"model.safetensors.index.json", "model.safetensors"}) {
    const std::string path = (fs::path(weights) / name).lexically_normal().string();
    if (!fs::exists(PathOf(file, path), error)) continue;
    weights = path;
    return absl::OkStatus();
  }
  return FieldError(kWeights, absl::StrCat("the folder ", PathOf(file, weights).string(),
                                           " has neither model.safetensors.index.json nor model.safetensors"));
}

absl::Status CheckFiles(const spec::SpecFile& file) {
  GPIPE_RETURN_IF_ERROR(CheckReadable(file, spec::FilesOf(file.spec)));
  GPIPE_ASSIGN_OR_RETURN(const std::vector<spec::NamedFile> files, AllFilesOf(file));
  return CheckReadable(file, files);
}

absl::Status GiveFiles(FileDelivery& delivery, const spec::SpecFile& file, FileMap& files) {
  GPIPE_ASSIGN_OR_RETURN(const std::vector<spec::NamedFile> named_files, AllFilesOf(file));
  // Several fields may name one file.
  std::set<std::string> names;
  for (const spec::NamedFile& named : named_files) names.insert(named.path);
  std::vector<fs::path> paths;
  for (const std::string& name : names) paths.push_back(PathOf(file, name));
  GPIPE_ASSIGN_OR_RETURN(const std::vector<v1::ArtifactRef> refs, delivery.Give(paths));
  auto ref = refs.begin();
  for (const std::string& name : names) files[name] = *ref++;
  return absl::OkStatus();
}

// What a checkpoint's manifest says it has, beside itself.
absl::StatusOr<std::vector<std::string>> FilesOfCheckpoint(const fs::path& folder) {
  const fs::path path = folder / kManifest;
  GPIPE_ASSIGN_OR_RETURN(const std::string text, ReadFile(path, kMaxManifestBytes));
  const nlohmann::json manifest = nlohmann::json::parse(text, nullptr, /*allow_exceptions=*/false);
  const auto files = manifest.is_object() ? manifest.find("files") : manifest.end();
  if (files == manifest.end() || !files->is_object()) {
    return absl::InvalidArgumentError(absl::StrCat(path.string(), ": is no checkpoint's manifest: it names no files"));
  }
  std::vector<std::string> names;
  for (const auto& [name, file] : files->items()) {
    if (fs::path(name).filename() != name) {
      return absl::InvalidArgumentError(
          absl::StrCat(path.string(), ": names '", name, "', which is no file beside it"));
    }
    names.push_back(name);
  }
  return names;
}

absl::Status AddResume(FileDelivery& delivery, const std::string& resume, v1::SubmitJobRequest& request) {
  if (resume.empty()) return absl::OkStatus();
  std::error_code error;
  if (!fs::is_directory(resume, error)) {
    request.set_resume_job(resume);
    return absl::OkStatus();
  }
  GPIPE_ASSIGN_OR_RETURN(const fs::path folder, NewestCheckpoint(resume));
  GPIPE_ASSIGN_OR_RETURN(const std::vector<std::string> names, FilesOfCheckpoint(folder));
  std::vector<fs::path> paths = {folder / kManifest};
  for (const std::string& name : names) paths.push_back(folder / name);
  GPIPE_ASSIGN_OR_RETURN(const std::vector<v1::ArtifactRef> refs, delivery.Give(paths));
  v1::ResumeFiles& files = *request.mutable_resume_files();
  *files.mutable_manifest() = refs[0];
  for (size_t i = 0; i < names.size(); ++i) (*files.mutable_files())[names[i]] = refs[i + 1];
  return absl::OkStatus();
}

absl::StatusOr<v1::Job> SubmitOnce(ClusterClient& client, const v1::SubmitJobRequest& request) {
  const absl::Time give_up = absl::Now() + kRetryFor;
  absl::Duration backoff = absl::Milliseconds(100);
  while (true) {
    absl::StatusOr<v1::Job> job = client.SubmitJob(request);
    if (!absl::IsUnavailable(job.status()) || absl::Now() > give_up) return job;
    if (!WaitUnlessStopped(client.stop(), backoff)) return job;
    backoff = std::min(backoff * 2, absl::Seconds(2));
  }
}

absl::StatusOr<v1::Job> GiveAndSubmit(ClusterClient& client, const spec::SpecFile& file, const std::string& resume,
                                      v1::SubmitJobRequest& request) {
  FileDelivery delivery(client);
  GPIPE_RETURN_IF_ERROR(GiveFiles(delivery, file, *request.mutable_files()));
  GPIPE_RETURN_IF_ERROR(AddResume(delivery, resume, request));
  GPIPE_RETURN_IF_ERROR(client.AwaitCluster());
  return SubmitOnce(client, request);
}

absl::StatusOr<v1::Job> SubmitWithoutLines(ClusterClient& client, const spec::SpecFile& file,
                                           const SubmitOptions& options) {
  // An orchestrator that is not there is said at once; only one that was there is waited for.
  GPIPE_RETURN_IF_ERROR(client.GetVersion().status());
  v1::SubmitJobRequest request;
  *request.mutable_spec() = file.spec;
  request.set_request_id(options.request_id.empty() ? RandomId() : options.request_id);
  absl::StatusOr<v1::Job> job = GiveAndSubmit(client, file, options.resume, request);
  // A file that was there, or was given long ago, may have gone with the last job that had it.
  if (ReasonOf(job.status()) == reason::kArtifactNotFound) job = GiveAndSubmit(client, file, options.resume, request);
  if (!absl::IsDeadlineExceeded(job.status())) return job;
  return absl::DeadlineExceededError(
      absl::StrCat("the orchestrator did not answer in time; it may accept the job all the same. The same command with "
                   "--request-id ",
                   request.request_id(), " answers with that job, and submits no second one"));
}

absl::StatusOr<v1::PlanJobResponse> PlanWithoutLines(ClusterClient& client, const spec::SpecFile& file,
                                                     const PlanOptions& options) {
  GPIPE_RETURN_IF_ERROR(client.GetVersion().status());
  v1::PlanJobRequest request;
  *request.mutable_spec() = file.spec;
  request.set_workers(options.workers);
  request.set_validate_only(options.validate_only);
  FileDelivery delivery(client);
  GPIPE_RETURN_IF_ERROR(GiveFiles(delivery, file, *request.mutable_files()));
  GPIPE_RETURN_IF_ERROR(client.AwaitCluster());
  return client.PlanJob(request);
}

// The step of a whole checkpoint's folder; -1 otherwise.
int64_t StepOf(const fs::path& folder) {
  int64_t step = -1;
  std::error_code error;
  return absl::SimpleAtoi(folder.filename().string(), &step) && fs::exists(folder / kManifest, error) ? step : -1;
}

std::set<int64_t> WholeCheckpoints(const fs::path& results) {
  std::set<int64_t> steps;
  std::error_code error;
  for (const auto& entry : fs::directory_iterator(results / "checkpoints", error)) {
    if (const int64_t step = StepOf(entry.path()); step >= 0) steps.insert(step);
  }
  return steps;
}

// Of those, the ones of the job that job.json tells of: an earlier job may have left others in the folder.
std::set<int64_t> OfItsJob(const std::set<int64_t>& steps, const fs::path& results) {
  std::set<int64_t> own;
  const v1::Job job = ReadJob(results);
  for (const v1::ResultFile& file : job.results()) {
    const int64_t step = StepOf(results / fs::path(file.path()).parent_path());
    if (steps.contains(step)) own.insert(step);
  }
  return own;
}

}  // namespace

absl::StatusOr<spec::SpecFile> LoadSpec(const fs::path& path) {
  GPIPE_ASSIGN_OR_RETURN(spec::SpecFile file, spec::ReadSpecFile(path));
  GPIPE_RETURN_IF_ERROR(spec::WithLines(spec::Validate(file.spec), file));
  GPIPE_RETURN_IF_ERROR(spec::WithLines(ExpandPatterns(file), file));
  GPIPE_RETURN_IF_ERROR(spec::WithLines(FindWeightsInFolder(file), file));
  GPIPE_RETURN_IF_ERROR(spec::WithLines(CheckFiles(file), file));
  return file;
}

absl::StatusOr<v1::Job> Submit(ClusterClient& client, const spec::SpecFile& file, const SubmitOptions& options) {
  absl::StatusOr<v1::Job> job = SubmitWithoutLines(client, file, options);
  if (!job.ok()) return spec::WithLines(job.status(), file);
  return job;
}

absl::StatusOr<v1::PlanJobResponse> Plan(ClusterClient& client, const spec::SpecFile& file,
                                         const PlanOptions& options) {
  absl::StatusOr<v1::PlanJobResponse> plan = PlanWithoutLines(client, file, options);
  if (!plan.ok()) return spec::WithLines(plan.status(), file);
  return plan;
}

absl::StatusOr<fs::path> NewestCheckpoint(const fs::path& folder) {
  std::error_code error;
  if (fs::exists(folder / kManifest, error)) return folder;
  const std::set<int64_t> whole = WholeCheckpoints(folder);
  if (whole.empty()) return absl::InvalidArgumentError(absl::StrCat("no whole checkpoint in ", folder.string()));
  const std::set<int64_t> own = OfItsJob(whole, folder);
  return folder / "checkpoints" / absl::StrCat(own.empty() ? *whole.rbegin() : *own.rbegin());
}

}  // namespace gpipe::client
