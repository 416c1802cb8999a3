#ifndef GPIPE_WORKER_STAGE_RECORDING_H_
#define GPIPE_WORKER_STAGE_RECORDING_H_

#include <ATen/cuda/CUDAGraph.h>

#include <cstdint>
#include <memory>
#include <vector>

#include "absl/functional/function_ref.h"
#include "absl/status/statusor.h"
#include "worker/model/graph_pool.h"
#include "worker/stage/stage.h"

namespace gpipe::worker {

// One call of a stage within a mini-batch.
struct StageCall {
  enum class Kind { kBegin, kForward, kSuspend, kResume, kRecompute, kBackward, kEnd };

  Kind kind = Kind::kBegin;
  int micro_batch = 0;
  ForwardMode mode = ForwardMode::kKeep;

  friend bool operator==(const StageCall&, const StageCall&) = default;
};

// The calls of a stage in one training mini-batch: first watched, then recorded, then replayed. Used by one thread,
// always with the same current stream.
class Recording {
 public:
  // What a call does when it is recorded, given what it will be given when it is replayed.
  using Make =
      absl::FunctionRef<absl::StatusOr<PassResults>(const StageCall& call, const std::vector<at::Tensor>& given)>;

  // Watching: a call was made. Keeps copies of what it was given, which is where its graph will look for it. Undefined
  // is what was not there.
  void Watch(const StageCall& call, const std::vector<at::Tensor>& given);
  // Whether the mini-batch was watched to its end.
  bool watched() const { return !calls_.empty() && calls_.back().call.kind == StageCall::Kind::kEnd; }

  // Records all calls; after an error none of them.
  absl::Status Record(GraphPool& pool, Make make);
  bool recorded() const { return recorded_; }
  size_t size() const { return calls_.size(); }

  // The first call comes next.
  void Rewind() { next_ = 0; }
  // Where the next pass of that kind and micro-batch, one of the next two calls, reads what it is given: what lies
  // there already is not copied. Empty: another call is next.
  at::TensorList Room(StageCall::Kind kind, int micro_batch) const;
  // Replays the next call. INTERNAL if it is another one than was watched, INVALID_ARGUMENT if a tensor has other
  // sizes.
  absl::StatusOr<PassResults> Replay(const StageCall& call, const std::vector<at::Tensor>& given);

 private:
  struct Recorded {
    StageCall call;
    std::vector<at::Tensor> given;
    std::unique_ptr<at::cuda::CUDAGraph> graph;
    PassResults results;
  };

  absl::Status RecordOne(GraphPool& pool, Make make, Recorded& recorded);

  std::vector<Recorded> calls_;
  bool recorded_ = false;
  size_t next_ = 0;
};

}  // namespace gpipe::worker

#endif  // GPIPE_WORKER_STAGE_RECORDING_H_
