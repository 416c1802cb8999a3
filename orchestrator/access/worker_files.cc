#include "orchestrator/access/worker_files.h"

#include <algorithm>

#include "common/attempt_id.h"

namespace gpipe::orchestrator {
namespace {

std::set<std::string> FilesOf(const v1::Assignment& assignment) {
  std::set<std::string> files;
  for (const auto& [path, ref] : assignment.files()) files.insert(ref.sha256());
  for (const v1::ArtifactRef& ref : assignment.resume_model()) files.insert(ref.sha256());
  for (const v1::ArtifactRef& ref : assignment.resume_optimizer()) files.insert(ref.sha256());
  return files;
}

std::set<std::string> FilesOf(const v1::Inspect& inspect) {
  std::set<std::string> files;
  for (const auto& [path, ref] : inspect.files()) files.insert(ref.sha256());
  return files;
}

}  // namespace

void WorkerFiles::Begin(SessionId session, std::string_view certificate_name) {
  absl::MutexLock lock(&mutex_);
  sessions_[session].certificate_name = std::string(certificate_name);
}

void WorkerFiles::Told(SessionId session, const v1::OrchestratorMessage& message) {
  if (!message.has_prepare() && !message.has_inspect() && !message.has_grant()) return;
  absl::MutexLock lock(&mutex_);
  const auto found = sessions_.find(session);
  if (found == sessions_.end()) return;
  Session& told = found->second;
  if (message.has_grant()) {
    for (const v1::Round& round : message.grant().next().rounds()) {
      if (!round.data().sha256().empty()) told.of_rounds.push_back(round.data().sha256());
      if (told.of_rounds.size() > kMaxRounds) told.of_rounds.pop_front();
    }
  } else if (message.has_prepare()) {
    told.of_rounds.clear();
    told.attempt = message.prepare().attempt();
    told.of_attempt = FilesOf(message.prepare());
  } else {
    told.of_inspections.push_back(FilesOf(message.inspect()));
    if (told.of_inspections.size() > kMaxInspections) told.of_inspections.pop_front();
  }
}

void WorkerFiles::End(SessionId session) {
  absl::MutexLock lock(&mutex_);
  sessions_.erase(session);
}

template <typename Predicate>
bool WorkerFiles::Any(std::string_view certificate_name, Predicate predicate) const {
  absl::MutexLock lock(&mutex_);
  return std::ranges::any_of(sessions_, [&](const auto& session) {
    return session.second.certificate_name == certificate_name && predicate(session.second);
  });
}

absl::Status WorkerFiles::MayRead(std::string_view certificate_name, const v1::ArtifactRef& file) const {
  const auto is_in = [&file](const std::set<std::string>& files) { return files.contains(file.sha256()); };
  const bool told = Any(certificate_name, [&](const Session& session) {
    return is_in(session.of_attempt) || std::ranges::any_of(session.of_inspections, is_in) ||
           std::ranges::find(session.of_rounds, file.sha256()) != session.of_rounds.end();
  });
  return told ? absl::OkStatus() : absl::PermissionDeniedError("the file is of no job that this worker has");
}

absl::Status WorkerFiles::MayWrite(std::string_view certificate_name, const v1::UploadArtifactRequest& first) const {
  const bool has_attempt = Any(certificate_name, [&](const Session& session) {
    return first.has_part_of() ? SameAttempt(session.attempt, first.part_of().attempt())
                               : !session.attempt.job().empty();
  });
  return has_attempt ? absl::OkStatus() : absl::PermissionDeniedError("the worker has no such attempt");
}

}  // namespace gpipe::orchestrator
