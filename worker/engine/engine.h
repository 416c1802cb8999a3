#ifndef GPIPE_WORKER_ENGINE_ENGINE_H_
#define GPIPE_WORKER_ENGINE_ENGINE_H_

#include <c10/core/Device.h>

#include <cstdint>
#include <filesystem>
#include <memory>
#include <optional>
#include <string>
#include <thread>
#include <variant>

#include "absl/base/thread_annotations.h"
#include "absl/status/statusor.h"
#include "absl/synchronization/mutex.h"
#include "worker/data/artifacts.h"
#include "worker/data/file_cache.h"
#include "worker/data/range_cache.h"
#include "worker/engine/activity_tracker.h"
#include "worker/engine/attempt.h"
#include "worker/engine/attempt_control.h"
#include "worker/engine/attempt_host.h"
#include "worker/engine/attempt_state.h"
#include "worker/engine/clock_offset.h"
#include "worker/engine/device_lock.h"
#include "worker/engine/failpoint.h"
#include "worker/engine/link_probe.h"
#include "worker/engine/message_sink.h"

namespace gpipe::worker {

struct EngineOptions {
  c10::Device device = c10::kCPU;
  int threads = 1;
  std::string data_address = "127.0.0.1";
  std::filesystem::path work_dir;           // Exists; the engine keeps its files in folders of its own below.
  std::filesystem::path shared_root = "/";  // Of `shared:` paths.
  std::filesystem::path trace_dir;          // Empty: no traces. Else a few rounds of each attempt are traced into it.
  // Of fetched files, what an attempt uses staying in any case; and as many of ranges of archives.
  int64_t cache_bytes = int64_t{64} << 30;
  int64_t max_shard_bytes = safetensors::kMaxShardBytes;  // Of a file of a model or a checkpoint.
  Connector connect = Connect;
  Failpoint failpoint;
  const ClockOffset* clock = nullptr;  // Of the orchestrator's clock, outlives the engine; null: not known.
  DeviceLock* device_lock =
      nullptr;  // Taken while there is an attempt, and outlives the engine; null: nobody else asks.
};

// Runs one attempt at a time on a thread of its own.
class Engine : public AttemptHost {
 public:
  // `artifacts` and `sink` must outlive the engine.
  static absl::StatusOr<std::unique_ptr<Engine>> Create(EngineOptions options, Artifacts& artifacts, MessageSink& sink);
  // Aborts what is under way and joins the thread.
  ~Engine() override;

  void Prepare(v1::Assignment assignment) override;
  void MeasureLinks(v1::MeasureLinks request) override;
  void Grant(const v1::Grant& grant) override;
  void OnRendezvousValue(const v1::RendezvousValue& value) override;
  void Abort(const v1::AttemptId& attempt, const absl::Status& reason) override;
  void Release(const v1::AttemptId& attempt) override;
  void AbortAndWait(const absl::Status& reason) override;
  v1::Activity activity() const override { return activity_.Get(); }

  AttemptState state() const;

 private:
  // What an attempt is there for.
  using Task = std::variant<v1::Assignment, v1::MeasureLinks>;

  Engine(EngineOptions options, FileCache cache, RangeCache ranges, Artifacts& artifacts, MessageSink& sink);

  // Begins an attempt, or refuses it.
  void Begin(const v1::AttemptId& id, AttemptEvent event, Task task);

  // The engine's thread.
  void Loop();
  // The attempt, until it ends.
  void Do(Task task, AttemptControl& control);
  void Run(v1::Assignment assignment, AttemptControl& control);
  void Run(const v1::MeasureLinks& request, AttemptControl& control);
  absl::Status RunPhases(Attempt& attempt, const v1::AttemptId& id);
  absl::Status ReportLinks(LinkProbe& probe, const v1::AttemptId& id);
  absl::Status Advance(AttemptEvent event);
  void Fail(const absl::Status& status, const AttemptControl& control);
  void LetGo(AttemptControl& control);

  // Moves the current attempt to kAborting and wakes its waiters.
  void AbortLocked(const absl::Status& reason, bool announced) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  // The control of that attempt if it is the current one, else null.
  AttemptControl* Find(const v1::AttemptId& id) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  bool HasWork() const ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_) { return pending_.has_value() || closing_; }
  bool Idle() const ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_) { return state_ == AttemptState::kIdle; }
  void SendReleased(const v1::AttemptId& attempt);

  const EngineOptions options_;
  Artifacts& artifacts_;
  MessageSink& sink_;
  ActivityTracker activity_;
  FileCache cache_;      // The engine's thread only.
  RangeCache ranges_;    // The engine's thread only.
  Failpoint failpoint_;  // The engine's thread only.

  // Held before the lock of control_ and those of the sink.
  mutable absl::Mutex mutex_;
  AttemptState state_ ABSL_GUARDED_BY(mutex_) = AttemptState::kIdle;
  std::optional<Task> pending_ ABSL_GUARDED_BY(mutex_);              // Until the engine's thread takes it.
  std::unique_ptr<AttemptControl> control_ ABSL_GUARDED_BY(mutex_);  // Ended by the engine's thread.
  bool closing_ ABSL_GUARDED_BY(mutex_) = false;

  std::thread thread_;
};

}  // namespace gpipe::worker

#endif  // GPIPE_WORKER_ENGINE_ENGINE_H_
