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
    bool deferred_batch_norm = false;
  };

  // Loads only what these nodes use and `pool`, if there is one, does not have yet. INVALID_ARGUMENT lists every node
  // that cannot be run, and why.
  static absl::StatusOr<std::unique_ptr<GraphLayer>> Create(const Archive& archive, const Part& part,
                                                            const CompileOptions& options, TensorPool* pool = nullptr,
                                                            InitialValues values = InitialValues::kArchive);

  std::vector<at::Tensor> Forward(const LayerContext& context, std::vector<at::Tensor> inputs) override;
  void EndMiniBatch() override { deferred_.Commit(); }

 private:
  // Values of the buffers that the program writes to, by buffer.
  using Kept = std::map<const c10::TensorImpl*, at::Tensor>;

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

  Kept CopyWritten() const;
  std::vector<c10::IValue> BoundFor(const LayerContext& context);
  // With the copies in place of the buffers that the program writes to.
  std::vector<c10::IValue> BoundTo(const Kept& copies) const;

  DeferredStatistics deferred_;
  std::unique_ptr<GraphCode> code_;
  std::vector<c10::IValue> bound_;  // Parameters, buffers and constants, after what enters.
  std::vector<size_t> written_;     // Those among them that the program writes to.
  // Copied, by position: what enters and is written to, because a forward may be repeated from it; and what leaves in a
  // buffer's memory, because the next micro-batch writes there.
  std::vector<size_t> copied_in_;
  std::vector<size_t> copied_out_;
  // By micro-batch, from before a forward that will be repeated: until then, or until the next step's.
  std::map<int, Kept> kept_;
};

}  // namespace gpipe::worker

#endif  // GPIPE_WORKER_EXPORTED_GRAPH_LAYER_H_
