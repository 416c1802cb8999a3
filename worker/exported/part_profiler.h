#ifndef GPIPE_WORKER_EXPORTED_PART_PROFILER_H_
#define GPIPE_WORKER_EXPORTED_PART_PROFILER_H_

#include <c10/core/Device.h>

#include <set>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "gpipe/v1/worker_session.pb.h"
#include "worker/exported/archive.h"
#include "worker/exported/graph_layer.h"
#include "worker/exported/units.h"
#include "worker/exported/value_table.h"
#include "worker/model/profile.h"

namespace gpipe::worker {

// Measures what parts of an exported program cost on a device, with parameters of the same shapes and other numbers:
// how long an operator takes does not depend on them, so that weights need not be read, nor be there. Buffers may be
// indices or masks, and keep theirs. What cannot be run with such numbers, because sizes or checks in it depend on what
// the data is, is estimated. Used by one thread.
class PartProfiler {
 public:
  // All must outlive the profiler.
  struct Model {
    const Archive& archive;
    const Units& units;
    const ValueTable& values;
  };

  // `parts` is the number of calls to come. REQUIRES: request.profile_micro_batch is set.
  PartProfiler(const Model& model, const v1::Inspect& request, c10::Device device, int parts)
      : model_(model), request_(request), device_(device), profiler_(device, request.has_loss(), parts + 1) {}

  // `read_later` has those of the values entering it that other parts read, too, behind it.
  absl::StatusOr<LayerCost> Measure(const GraphLayer::Part& part, const std::set<std::string>& read_later);
  // Of the value that the loss takes.
  absl::StatusOr<LayerCost> MeasureLoss(const std::string& output);

 private:
  absl::StatusOr<ModelLayer> Build(const GraphLayer::Part& part) const;
  absl::StatusOr<TensorPool> StandIns(const GraphLayer::Part& part) const;
  bool DependsOnData(const GraphLayer::Part& part) const;
  bool IsTrained(const std::string& name) const;
  // Parts of the same operators on values and parameters of the same shapes cost the same.
  std::string Describe(const GraphLayer::Part& part) const;

  const Model model_;
  const v1::Inspect& request_;
  const c10::Device device_;
  LayerProfiler profiler_;
};

}  // namespace gpipe::worker

#endif  // GPIPE_WORKER_EXPORTED_PART_PROFILER_H_
