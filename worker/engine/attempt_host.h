#ifndef GPIPE_WORKER_ENGINE_ATTEMPT_HOST_H_
#define GPIPE_WORKER_ENGINE_ATTEMPT_HOST_H_

#include "absl/status/status.h"
#include "gpipe/v1/worker_session.pb.h"

namespace gpipe::worker {

// What a session needs of the engine. Any thread may call any method. AbortAndWait waits for the engine; the
// others for nothing but room in the outbox, for their answer. Messages of another attempt than the current one change
// nothing.
class AttemptHost {
 public:
  virtual ~AttemptHost() = default;

  // Begins an attempt. Answers with Prepared or Failed; with Failed at once when another attempt is under way.
  virtual void Prepare(v1::Assignment assignment) = 0;
  // Begins an attempt that only measures. Answers with LinksMeasured, or as Prepare.
  virtual void MeasureLinks(v1::MeasureLinks request) = 0;
  virtual void Grant(const v1::Grant& grant) = 0;
  virtual void OnRendezvousValue(const v1::RendezvousValue& value) = 0;
  // Both are answered with Released, also when there is nothing (any more) to let go of.
  virtual void Abort(const v1::AttemptId& attempt, const absl::Status& reason) = 0;
  virtual void Release(const v1::AttemptId& attempt) = 0;

  // Aborts whatever is under way and returns when it is let go of, without an answer: there is nobody to hear it.
  virtual void AbortAndWait(const absl::Status& reason) = 0;

  virtual v1::Activity activity() const = 0;
};

}  // namespace gpipe::worker

#endif  // GPIPE_WORKER_ENGINE_ATTEMPT_HOST_H_
