#include "orchestrator/scheduling/admission.h"

#include <utility>

#include "absl/strings/str_cat.h"
#include "common/error_reason.h"
#include "common/field_error.h"
#include "common/status_macros.h"
#include "common/string_view.h"
#include "orchestrator/artifacts/checkpoint_assembler.h"
#include "orchestrator/planning/planner.h"

namespace gpipe::orchestrator {

void Admission::Submit(const v1::SubmitJobRequest& request, const v1::JobSpec& spec, std::string submitted_by,
                       SubmitCallback done) {
  if (!closed_.ok()) return done(closed_);
  StoredJob stored;
  *stored.job.mutable_spec() = spec;
  stored.job.set_submitted_by(std::move(submitted_by));
  stored.request_id = request.request_id();
  stored.fingerprint = Fingerprint(request);
  stored.files.insert(request.files().begin(), request.files().end());
  if (AnsweredBefore(stored, done)) return;
  if (parts_.disk->full()) return done(absl::ResourceExhaustedError(parts_.disk->why()));
  if (parts_.book->unfinished() + submissions_.size() >= JobBook::kMaxUnfinished) {
    return done(
        WithReason(absl::ResourceExhaustedError(absl::StrCat(JobBook::kMaxUnfinished, " jobs are waiting already")),
                   reason::kTooManyJobs));
  }
  absl::StatusOr<std::optional<CheckpointFiles>> resume = ResumeJob(request.resume_job());
  if (!resume.ok()) return done(resume.status());
  stored.resume = *std::move(resume);

  const uint64_t id = next_id_++;
  submissions_.emplace(id, Submission{std::move(stored), std::move(done)});
  if (!request.has_resume_files()) return CheckSpec(id);
  parts_.checker->InBackground<absl::StatusOr<CheckpointFiles>>(
      [artifacts = parts_.artifacts, files = request.resume_files()] { return CheckResumeFiles(*artifacts, files); },
      [this, id](absl::StatusOr<CheckpointFiles> files) {
        auto found = submissions_.find(id);
        if (found == submissions_.end()) return;
        if (!files.ok()) return Refuse(id, files.status());
        found->second.stored.resume = *std::move(files);
        CheckSpec(id);
      });
}

absl::Status Admission::OfSpec(const absl::Status& why) {
  return absl::IsInvalidArgument(why) ? WithReason(why, reason::kInvalidSpec) : why;
}

// A repeated request is answered without checking its spec again: its files may be gone, and its job over.
bool Admission::AnsweredBefore(const StoredJob& stored, const SubmitCallback& done) {
  absl::StatusOr<std::optional<StoredJob>> known = parts_.book->store().FindRequest(stored.request_id);
  if (!known.ok()) {
    done(known.status());
    return true;
  }
  if (!known->has_value()) return false;
  if ((*known)->fingerprint != stored.fingerprint) {
    done(WithReason(absl::AlreadyExistsError(absl::StrCat("request_id '", stored.request_id,
                                                          "' was used for another request, job ", (*known)->job.id())),
                    reason::kRequestIdReused));
  } else {
    Answer(done, parts_.book->Get((*known)->job.id()));
  }
  return true;
}

absl::StatusOr<std::optional<CheckpointFiles>> Admission::ResumeJob(std::string_view id) {
  if (id.empty()) return std::nullopt;
  GPIPE_ASSIGN_OR_RETURN(std::optional<CheckpointFiles> checkpoint, parts_.book->store().LatestCheckpoint(id));
  if (!checkpoint.has_value()) {
    return WithReason(absl::FailedPreconditionError(
                          absl::StrCat("job ", AbslView(id),
                                       " has no checkpoint to resume from; its spec needs train.checkpoint_every, or "
                                       "somebody has to ask for one (gpipe job checkpoint)")),
                      reason::kNoCheckpoint);
  }
  return checkpoint;
}

void Admission::CheckSpec(uint64_t id) {
  const StoredJob& stored = submissions_.at(id).stored;
  parts_.checker->Check(stored.job.spec(), stored.files, stored.resume,
                        [this, id](absl::StatusOr<CheckedSpec> checked) { OnChecked(id, std::move(checked)); });
}

void Admission::OnChecked(uint64_t id, absl::StatusOr<CheckedSpec> checked) {
  if (!submissions_.contains(id)) return;  // Refused meanwhile.
  if (!checked.ok()) return Refuse(id, OfSpec(checked.status()));
  if (!checked->weights.ok()) return Refuse(id, OfSpec(checked->weights));
  const StoredJob& stored = submissions_.at(id).stored;
  if (stored.resume.has_value() && checked->facts.samples > 0) {  // Else its data is not known yet.
    const int64_t steps = TotalSteps(stored.job.spec(), checked->facts);
    if (steps <= stored.resume->step) {
      return Refuse(
          id, OfSpec(FieldError(stored.job.spec().train().epochs() > 0 ? "train.epochs" : "train.steps",
                                absl::StrCat("makes ", steps, " steps, and the checkpoint to resume from has done ",
                                             stored.resume->step))));
    }
  }
  auto node = submissions_.extract(id);
  Insert(std::move(node.mapped()), *checked);
}

void Admission::Insert(Submission submission, const CheckedSpec& checked) {
  absl::StatusOr<Store::Inserted> inserted = parts_.book->Add(submission.stored);
  if (!inserted.ok()) return Answer(submission.done, inserted.status());
  LiveJob* job = parts_.book->Find(inserted->job.job.id());
  if (inserted->created && job != nullptr) {
    job->checked = checked;
    for (const std::string& note : checked.notes) parts_.book->Warn(*job, note);
  }
  parts_.scheduler->ScheduleSoon();
  Answer(submission.done, parts_.book->Get(inserted->job.job.id()));
}

void Admission::Refuse(uint64_t id, const absl::Status& why) {
  auto node = submissions_.extract(id);
  if (!node.empty()) node.mapped().done(why);
}

void Admission::Answer(const SubmitCallback& done, absl::StatusOr<v1::Job> result) {
  parts_.loop->AfterCommit([done, result = std::move(result)](const absl::Status& stored) {
    if (stored.ok()) return done(result);
    done(stored);
  });
}

void Admission::Shutdown(const absl::Status& reason) {
  closed_ = reason;
  while (!submissions_.empty()) Refuse(submissions_.begin()->first, reason);
  while (!plannings_.empty()) FinishPlan(plannings_.begin()->first, reason);
}

}  // namespace gpipe::orchestrator
