#ifndef GPIPE_WORKER_ENGINE_ROUND_TRACE_H_
#define GPIPE_WORKER_ENGINE_ROUND_TRACE_H_

#include <ATen/record_function.h>
#include <c10/core/Device.h>

#include <cstdint>
#include <filesystem>
#include <optional>

#include "absl/status/status.h"
#include "pipeline/action.h"

namespace gpipe::worker {

// Records two rounds of an attempt with LibTorch's profiler: the schedule's actions, operators, and on a GPU kernels
// and copies, as a file for Perfetto or chrome://tracing. Times are the machine's clock, so that the files of several
// workers on one machine line up. Used by the engine's thread only.
class RoundTrace {
 public:
  // Kineto, the profiler's library, insists on the process's main thread for this; call it there once before any trace.
  static absl::Status SetUpProcess(c10::Device device);

  // Traces into `file`, whose folder is made; none: does nothing. `rounds` is how many the attempt has,
  // nullopt if they are too many to be known yet: the first few, which warm up, are left out if there are more.
  RoundTrace(std::filesystem::path file, c10::Device device, std::optional<int64_t> rounds);
  // An attempt that fails amid the traced rounds leaves no file.
  ~RoundTrace();
  RoundTrace(const RoundTrace&) = delete;
  RoundTrace& operator=(const RoundTrace&) = delete;

  // The round with this index begins.
  absl::Status BeginRound(int64_t index);
  // All rounds are done.
  absl::Status Finish();

 private:
  absl::Status Start();
  absl::Status Save();

  const std::filesystem::path file_;
  const c10::Device device_;
  const int64_t first_round_;
  bool recording_ = false;
};

// Names the calling thread's work in a trace while it lives; costs next to nothing when there is none.
class TracedAction {
 public:
  explicit TracedAction(const pipeline::Action& action);
  // What is no action. `name` must outlive this.
  explicit TracedAction(const char* name);

 private:
  at::RecordFunction record_;
};

}  // namespace gpipe::worker

#endif  // GPIPE_WORKER_ENGINE_ROUND_TRACE_H_
