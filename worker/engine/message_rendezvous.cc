#include "worker/engine/message_rendezvous.h"

#include <utility>

#include "absl/strings/str_cat.h"
#include "common/string_view.h"

namespace gpipe::worker {

absl::Status MessageRendezvous::Put(std::string_view key, std::string_view value) {
  {
    absl::MutexLock lock(&mutex_);
    if (!aborted_.ok()) return aborted_;
  }
  v1::WorkerMessage message;
  v1::RendezvousPut& put = *message.mutable_rendezvous_put();
  *put.mutable_attempt() = attempt_;
  put.set_key(std::string(key));
  put.set_value(std::string(value));
  sink_.Send(std::move(message));
  return absl::OkStatus();
}

absl::StatusOr<std::string> MessageRendezvous::Get(std::string_view key, absl::Duration timeout) {
  v1::WorkerMessage message;
  v1::RendezvousGet& get = *message.mutable_rendezvous_get();
  *get.mutable_attempt() = attempt_;
  get.set_key(std::string(key));
  sink_.Send(std::move(message));

  absl::MutexLock lock(&mutex_);
  auto there = [this, key]() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_) { return !aborted_.ok() || values_.contains(key); };
  const bool in_time = mutex_.AwaitWithTimeout(absl::Condition(&there), timeout);
  if (!aborted_.ok()) return aborted_;
  if (!in_time) {
    return absl::DeadlineExceededError(
        absl::StrCat("no peer has put '", AbslView(key), "' within ", absl::FormatDuration(timeout)));
  }
  return values_.find(key)->second;
}

void MessageRendezvous::Abort(const absl::Status& reason) {
  absl::MutexLock lock(&mutex_);
  if (aborted_.ok()) aborted_ = reason;
}

void MessageRendezvous::OnValue(const std::string& key, const std::string& value) {
  absl::MutexLock lock(&mutex_);
  values_.insert_or_assign(key, value);
}

}  // namespace gpipe::worker
