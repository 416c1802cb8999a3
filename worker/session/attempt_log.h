#ifndef GPIPE_WORKER_SESSION_ATTEMPT_LOG_H_
#define GPIPE_WORKER_SESSION_ATTEMPT_LOG_H_

#include <cstddef>
#include <functional>
#include <memory>
#include <string>
#include <string_view>

#include "absl/base/thread_annotations.h"
#include "absl/synchronization/mutex.h"
#include "gpipe/v1/worker_session.pb.h"
#include "spdlog/sinks/sink.h"
#include "worker/session/outbox.h"

namespace gpipe::worker {

// A sink that sends what the worker logs while it works for an attempt, from level info on, to the orchestrator, where
// it becomes part of the job's events. Of each attempt only so much: the rest is in the worker's own log, as a last
// line says. Any thread may log; none waits for anything but the locks of the attempt's owner and of the outbox, which
// are held briefly. Nothing below this sink logs.
class AttemptLog final : public spdlog::sinks::sink {
 public:
  // Of one attempt. Warnings are counted apart, so that what went wrong in the end is not lost behind what went well.
  static constexpr int kMaxLines = 200;
  static constexpr size_t kMaxBytes = 64 << 10;
  static constexpr size_t kMaxLineBytes = 2000;

  // The attempt that the worker works for; empty when there is none.
  using AttemptSource = std::function<v1::AttemptId()>;

  // `outbox` must outlive what follows.
  explicit AttemptLog(Outbox& outbox);

  // Makes it a sink of spdlog's default logger for good. Its lines do not depend on the level of the worker's own log.
  // Call before any other thread logs.
  static std::shared_ptr<AttemptLog> Install(Outbox& outbox);

  // Sends lines from now on; with null not any more, so that the outbox and the source may go.
  void Follow(AttemptSource attempt);

  void log(const spdlog::details::log_msg& message) override;
  void flush() override {}
  // Lines are sent as they are; the orchestrator adds time and worker.
  void set_pattern(const std::string&) override {}
  void set_formatter(std::unique_ptr<spdlog::formatter>) override {}

 private:
  struct Spent {
    int lines = 0;
    size_t bytes = 0;
  };

  void SendLine(const spdlog::details::log_msg& message, std::string_view text) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);

  Outbox& outbox_;
  absl::Mutex mutex_;  // Held before the locks of the source and of the outbox.
  AttemptSource source_ ABSL_GUARDED_BY(mutex_);
  v1::AttemptId attempt_ ABSL_GUARDED_BY(mutex_);
  Spent lines_ ABSL_GUARDED_BY(mutex_);
  Spent warnings_ ABSL_GUARDED_BY(mutex_);
  bool said_more_ ABSL_GUARDED_BY(mutex_) = false;
};

}  // namespace gpipe::worker

#endif  // GPIPE_WORKER_SESSION_ATTEMPT_LOG_H_
