#ifndef GPIPE_ORCHESTRATOR_ACCESS_WORKER_FILES_H_
#define GPIPE_ORCHESTRATOR_ACCESS_WORKER_FILES_H_

#include <cstdint>
#include <deque>
#include <map>
#include <set>
#include <string>
#include <string_view>

#include "absl/base/thread_annotations.h"
#include "absl/status/status.h"
#include "absl/synchronization/mutex.h"
#include "gpipe/v1/pipeline_service.pb.h"

namespace gpipe::orchestrator {

// Which files the workers of a certificate have to do with: those that the orchestrator has told them of, on a session
// that is open, for the attempt that they have or the inspection they were asked for last. Files travel in calls of
// their own, which carry no name of a worker, only a certificate. Any thread may call any method.
class WorkerFiles {
 public:
  using SessionId = uint64_t;

  void Begin(SessionId session, std::string_view certificate_name);
  static constexpr size_t kMaxInspections = 64;
  static constexpr size_t kMaxRounds = 8192;

  // Before the message is sent. A new assignment takes the place of the one before; inspections may wait for each
  // other.
  void Told(SessionId session, const v1::OrchestratorMessage& message);
  void End(SessionId session);

  // PERMISSION_DENIED: no worker of that certificate was told of the file.
  absl::Status MayRead(std::string_view certificate_name, const v1::ArtifactRef& file) const;
  // PERMISSION_DENIED: it is a part of an attempt that no worker of that certificate has; or a file, and none has any.
  absl::Status MayWrite(std::string_view certificate_name, const v1::UploadArtifactRequest& first) const;

 private:
  struct Session {
    std::string certificate_name;
    v1::AttemptId attempt;
    std::set<std::string> of_attempt;  // SHA-256.
    std::deque<std::set<std::string>> of_inspections;
    std::deque<std::string> of_rounds;  // Those that a client gave, the newest.
  };
  template <typename Predicate>
  bool Any(std::string_view certificate_name, Predicate predicate) const;

  mutable absl::Mutex mutex_;
  std::map<SessionId, Session> sessions_ ABSL_GUARDED_BY(mutex_);
};

}  // namespace gpipe::orchestrator

#endif  // GPIPE_ORCHESTRATOR_ACCESS_WORKER_FILES_H_
