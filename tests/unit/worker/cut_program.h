#ifndef GPIPE_TESTS_UNIT_WORKER_CUT_PROGRAM_H_
#define GPIPE_TESTS_UNIT_WORKER_CUT_PROGRAM_H_

#include <map>
#include <memory>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "worker/exported/graph_layer.h"
#include "worker/exported/units.h"

namespace gpipe::worker {

// A program in several parts, as stages run it: only detached values cross, and gradients come back for them.
class CutProgram {
 public:
  // `cuts` are some of units.cuts(), ascending; none for a single part. `archive` must outlive the program.
  static absl::StatusOr<std::unique_ptr<CutProgram>> Create(const Archive& archive, const Units& units,
                                                            std::vector<size_t> cuts);

  // Each forward in training is first done without gradients, then repeated with them.
  void RecomputeAlways() { recomputes_ = true; }

  // The program's outputs. Throws what LibTorch throws.
  std::vector<at::Tensor> Forward(const std::vector<at::Tensor>& inputs, LayerContext context = {.training = true});

  // Of the last forward. `gradients` by output; undefined for none.
  void Backward(const std::vector<at::Tensor>& gradients);

  // Of a parameter that several parts have, the sum. Undefined: it has none.
  at::Tensor GradientOf(const std::string& name) const;

  // One step of SGD in every part that has a parameter; then there are no gradients.
  void Update(double lr);

  // A parameter or buffer, in each part that has it.
  std::vector<at::Tensor> CopiesOf(const std::string& name) const;

 private:
  struct Stage {
    GraphLayer::Part part;
    std::unique_ptr<GraphLayer> layer;
    std::vector<at::Tensor> leaves, results;
  };

  explicit CutProgram(const exported::Program& program) : program_(program) {}
  std::vector<LayerTensor> Tensors() const;  // Of all parts.
  void RunForward(Stage& stage, LayerContext context);
  void RunBackward(Stage& stage, const std::vector<at::Tensor>& gradients);

  const exported::Program& program_;
  bool recomputes_ = false;
  std::vector<Stage> stages_;
  std::map<std::string, at::Tensor> values_;
  std::map<std::string, at::Tensor> sums_;  // Gradients of values, from all later parts.
};

}  // namespace gpipe::worker

#endif  // GPIPE_TESTS_UNIT_WORKER_CUT_PROGRAM_H_
