#include "worker/session/attempt_log.h"

#include <algorithm>
#include <chrono>
#include <utility>

#include "absl/strings/str_cat.h"
#include "common/attempt_id.h"
#include "common/printable.h"
#include "common/utf8.h"
#include "google/protobuf/util/time_util.h"
#include "spdlog/spdlog.h"

namespace gpipe::worker {
namespace {

constexpr std::string_view kMore = "there is more in the worker's own log";

// As it stands in the job's log, where everything is about that attempt.
std::string TextOf(const spdlog::details::log_msg& message, const v1::AttemptId& attempt) {
  std::string text = Printable({message.payload.data(), message.payload.size()});
  const std::string name = absl::StrCat(AttemptName(attempt), ": ");
  if (text.starts_with(name)) text.erase(0, name.size());
  if (text.size() <= AttemptLog::kMaxLineBytes) return text;
  return std::string(Utf8Prefix(text.substr(0, AttemptLog::kMaxLineBytes))) + " ...";
}

}  // namespace

AttemptLog::AttemptLog(Outbox& outbox) : outbox_(outbox) { set_level(spdlog::level::info); }

std::shared_ptr<AttemptLog> AttemptLog::Install(Outbox& outbox) {
  auto sink = std::make_shared<AttemptLog>(outbox);
  const std::shared_ptr<spdlog::logger> logger = spdlog::default_logger();
  for (const spdlog::sink_ptr& other : logger->sinks()) other->set_level(std::max(other->level(), logger->level()));
  logger->sinks().push_back(sink);
  logger->set_level(std::min(logger->level(), sink->level()));
  return sink;
}

void AttemptLog::Follow(AttemptSource attempt) {
  absl::MutexLock lock(&mutex_);
  source_ = std::move(attempt);
}

void AttemptLog::log(const spdlog::details::log_msg& message) {
  absl::MutexLock lock(&mutex_);
  if (source_ == nullptr) return;
  v1::AttemptId attempt = source_();
  if (attempt.job().empty()) return;
  if (!SameAttempt(attempt, attempt_)) {
    attempt_ = std::move(attempt);
    lines_ = warnings_ = {};
    said_more_ = false;
  }
  Spent& spent = message.level >= spdlog::level::warn ? warnings_ : lines_;
  const std::string text = TextOf(message, attempt_);
  if (spent.lines == kMaxLines || spent.bytes + text.size() > kMaxBytes) {
    if (!std::exchange(said_more_, true)) SendLine(message, kMore);
    return;
  }
  ++spent.lines;
  spent.bytes += text.size();
  SendLine(message, text);
}

void AttemptLog::SendLine(const spdlog::details::log_msg& message, std::string_view text) {
  v1::WorkerMessage sent;
  *sent.mutable_log()->mutable_attempt() = attempt_;
  v1::LogLine& line = *sent.mutable_log()->add_lines();
  const auto since_epoch = std::chrono::duration_cast<std::chrono::nanoseconds>(message.time.time_since_epoch());
  *line.mutable_time() = google::protobuf::util::TimeUtil::NanosecondsToTimestamp(since_epoch.count());
  line.set_warning(message.level >= spdlog::level::warn && text != kMore);
  line.set_text(std::string(text));
  outbox_.Post(std::move(sent));
}

}  // namespace gpipe::worker
