#ifndef GPIPE_WORKER_EXPORTED_GRAPH_LAYER_H_
#define GPIPE_WORKER_EXPORTED_GRAPH_LAYER_H_

#include <map>
#include <memory>
#include <set>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "worker/exported/archive.h"
#include "worker/exported/graph_code.h"
#include "worker/model/layer.h"
#include "worker/model/tensor_layout.h"

namespace gpipe::worker {

// Parameters, buffers and constants by Archive::KeyOf.
using TensorPool = std::map<std::string, at::Tensor>;

enum class InitialValues {
  kArchive,
  kFollow,  // Those of the state_dict() are for the caller to fill in.
};

// Some nodes of an exported program as a layer, with the parameters and buffers that they use. Its tensors are named as
// in the model's state_dict(); a tied parameter has one name and is one tensor, whatever the program calls it.
class GraphLayer : public Layer {
 public:
  struct Part {
    std::vector<size_t> nodes;  // Positions in the program, ascending.
    std::vector<std::string> entering;
    std::vector<std::string> leaving;
    std::set<std::string> written;        // As in Aliasing, of the part's own values.
    std::set<std::string> written_state;  // As in Aliasing, of the part's own values.
    std::vector<std::string> state;       // Tensors of state_dict() that belong to it, used by the nodes or not.
    bool deferred_batch_norm = false;
  };

  // Loads only what these nodes use, or belongs to them, and `pool`, if there is one, does not have yet.
  // INVALID_ARGUMENT lists every node that cannot be run, and why.
  static absl::StatusOr<std::unique_ptr<GraphLayer>> Create(const Archive& archive, const Part& part,
                                                            const CompileOptions& options, TensorPool* pool = nullptr,
                                                            InitialValues values = InitialValues::kArchive);

  std::vector<at::Tensor> Forward(const LayerContext& context, std::vector<at::Tensor> inputs) override;
  void EndMiniBatch() override { deferred_.Commit(); }
  void ForgetMiniBatch(int64_t step) override { mini_batches_.erase(step); }

 private:
  // Copies of what the program writes to, by the live tensor.
  using Copies = std::map<const c10::TensorImpl*, at::Tensor>;

  // What a mini-batch's micro-batches are computed again from.
  struct MiniBatchStart {
    Copies parameters;              // As the mini-batch began with them.
    std::map<int, Copies> buffers;  // By micro-batch, from before its forward, until it is repeated.
  };

  // Where what a layer is bound to comes from.
  struct Origin {
    const Archive& archive;
    c10::Device device;
    TensorPool& pool;
    InitialValues values;
  };

  absl::Status Bind(const Origin& origin, const std::vector<const exported::Input*>& inputs,
                    const std::set<std::string>& written);
  absl::StatusOr<at::Tensor> BindOne(const Origin& origin, const exported::Input& input);
  absl::StatusOr<at::Tensor> BindState(const Origin& origin, const std::string& name);

  const at::Tensor& Live(size_t position) const { return bound_[position].toTensor(); }
  Copies CopyOf(const std::vector<size_t>& positions) const;
  // What a training forward works on in place of the parameters that the program writes to.
  Copies ParameterCopies(const LayerContext& context);
  // Moves what a forward has written to its copies of parameters to the parameters.
  void TakeWrites(const LayerContext& context, const Copies& copies) const;
  // What stands for the buffers that the program writes to; nothing where they themselves are written to.
  Copies BufferCopies(const LayerContext& context);
  // With the copies in their places.
  std::vector<c10::IValue> BoundTo(const Copies& copies) const;

  DeferredStatistics deferred_;
  std::unique_ptr<GraphCode> code_;
  std::vector<c10::IValue> bound_;  // Parameters, buffers and constants, after what enters.
  // Those among them that the program writes to.
  std::vector<size_t> written_buffers_, written_parameters_;
  // Copied, by position: what enters and is written to, because a forward may be repeated from it; and what leaves in a
  // buffer's memory, because the next micro-batch writes there.
  std::vector<size_t> copied_in_;
  std::vector<size_t> copied_out_;
  std::map<size_t, DimensionOrder> layouts_;        // Of the model's inputs, by position in what enters.
  std::map<int64_t, MiniBatchStart> mini_batches_;  // By step; of programs that write to parameters or buffers.
};

}  // namespace gpipe::worker

#endif  // GPIPE_WORKER_EXPORTED_GRAPH_LAYER_H_
