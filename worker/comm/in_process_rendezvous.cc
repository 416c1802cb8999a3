#include "worker/comm/in_process_rendezvous.h"

#include "absl/strings/str_cat.h"
#include "absl/time/time.h"
#include "common/status_macros.h"
#include "common/string_view.h"

namespace gpipe::worker {

absl::Status InProcessRendezvous::Put(std::string_view key, std::string_view value) {
  absl::MutexLock lock(&mutex_);
  GPIPE_RETURN_IF_ERROR(aborted_);
  if (!values_.emplace(key, value).second) {
    return absl::AlreadyExistsError(absl::StrCat("rendezvous key ", AbslView(key), " was put before"));
  }
  return absl::OkStatus();
}

absl::StatusOr<std::string> InProcessRendezvous::Get(std::string_view key, absl::Duration timeout) {
  absl::MutexLock lock(&mutex_);
  const auto there = [&]() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_) { return !aborted_.ok() || values_.contains(key); };
  const bool in_time = mutex_.AwaitWithTimeout(absl::Condition(&there), timeout);
  GPIPE_RETURN_IF_ERROR(aborted_);
  if (in_time) return values_.find(key)->second;
  return absl::DeadlineExceededError(
      absl::StrCat("nobody put rendezvous key ", AbslView(key), " within ", absl::FormatDuration(timeout)));
}

void InProcessRendezvous::Abort(const absl::Status& reason) {
  absl::MutexLock lock(&mutex_);
  if (aborted_.ok()) aborted_ = reason.ok() ? absl::CancelledError("aborted") : reason;
}

}  // namespace gpipe::worker
