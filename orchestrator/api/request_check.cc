#include "orchestrator/api/request_check.h"

#include "absl/strings/str_cat.h"
#include "common/error_reason.h"
#include "common/field_error.h"
#include "common/sha256.h"
#include "common/spec/reader.h"
#include "common/spec/validator.h"
#include "common/status_macros.h"
#include "common/string_view.h"

namespace gpipe::orchestrator {
namespace {

constexpr size_t kMaxRequestId = 128;
constexpr size_t kMaxJobId = 128;
constexpr int kMaxFiles = 1000;
constexpr size_t kMaxPath = 4096;
constexpr int kMaxWorkers = 10000;
constexpr int kMaxStates = 64;  // Each once, and some of tomorrow.

void CheckRef(std::string_view field, const v1::ArtifactRef& ref, FieldErrors& errors) {
  if (!IsSha256(ref.sha256()))
    errors.Add(absl::StrCat(AbslView(field), ".sha256"), "must be 64 lower-case hexadecimal digits");
  if (ref.size() < 0) errors.Add(absl::StrCat(AbslView(field), ".size"), "must not be negative");
}

template <typename Files>
absl::Status CheckFiles(const Files& files) {
  FieldErrors errors;
  if (files.size() > kMaxFiles) return FieldError("files", absl::StrCat("has more than ", kMaxFiles, " entries"));
  for (const auto& [path, ref] : files) {
    if (path.size() > kMaxPath) errors.Add("files", absl::StrCat("has a path of more than ", kMaxPath, " bytes"));
    CheckRef(absl::StrCat("files[", path.substr(0, kMaxRequestId), "]"), ref, errors);
  }
  return errors.ToStatus();
}

absl::Status CheckSpec(const v1::JobSpec& spec) {
  if (spec.ByteSizeLong() > spec::kMaxSpecBytes) {
    return FieldError("spec", absl::StrCat("is larger than ", spec::kMaxSpecBytes, " bytes"));
  }
  return WithReason(spec::Validate(spec), reason::kInvalidSpec);
}

absl::Status CheckResume(const v1::SubmitJobRequest& request) {
  const bool job = !request.resume_job().empty(), files = request.has_resume_files();
  FieldErrors errors;
  if (job && files) errors.Add("resume_files", "cannot be given together with resume_job");
  if ((job || files) && !request.spec().has_train()) errors.Add("spec", "resuming needs a training job");
  if (request.resume_job().size() > kMaxJobId) errors.Add("resume_job", "is too long");
  if (!files) return errors.ToStatus();
  CheckRef("resume_files.manifest", request.resume_files().manifest(), errors);
  for (const auto& [name, ref] : request.resume_files().files()) {
    CheckRef(absl::StrCat("resume_files.files[", name.substr(0, kMaxRequestId), "]"), ref, errors);
  }
  return errors.ToStatus();
}

}  // namespace

absl::Status CheckRequest(const v1::SubmitJobRequest& request) {
  if (!request.has_spec()) return FieldError("spec", "is missing");
  if (request.request_id().size() > kMaxRequestId) {
    return FieldError("request_id", absl::StrCat("is longer than ", kMaxRequestId, " bytes"));
  }
  GPIPE_RETURN_IF_ERROR(CheckSpec(request.spec()));
  GPIPE_RETURN_IF_ERROR(CheckFiles(request.files()));
  return CheckResume(request);
}

absl::Status CheckRequest(const v1::PlanJobRequest& request) {
  if (!request.has_spec()) return FieldError("spec", "is missing");
  if (request.workers() < 0 || request.workers() > kMaxWorkers) {
    return FieldError("workers", absl::StrCat("must be between 0 and ", kMaxWorkers));
  }
  GPIPE_RETURN_IF_ERROR(CheckSpec(request.spec()));
  return CheckFiles(request.files());
}

absl::Status CheckRequest(const v1::ListJobsRequest& request) {
  if (request.states_size() > kMaxStates)
    return FieldError("states", absl::StrCat("has more than ", kMaxStates, " entries"));
  for (int i = 0; i < request.states_size(); ++i) {
    const int state = request.states(i);
    if (!v1::Job::State_IsValid(state) || state == v1::Job::STATE_UNSPECIFIED) {
      return FieldError(absl::StrCat("states[", i, "]"), absl::StrCat("is no state: ", state));
    }
  }
  return absl::OkStatus();
}

absl::Status CheckRequest(const v1::GetTimelineRequest& request) {
  if (request.job().empty()) return FieldError("job", "is missing");
  if (request.job().size() > kMaxJobId) return FieldError("job", absl::StrCat("is longer than ", kMaxJobId, " bytes"));
  return request.step() < 0 ? FieldError("step", "is negative") : absl::OkStatus();
}

absl::Status CheckJobId(const std::string& id) {
  if (id.empty()) return FieldError("id", "is missing");
  if (id.size() > kMaxJobId) return FieldError("id", absl::StrCat("is longer than ", kMaxJobId, " bytes"));
  return absl::OkStatus();
}

}  // namespace gpipe::orchestrator
