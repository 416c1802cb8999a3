#ifndef GPIPE_WORKER_EXPORTED_STATE_INSPECTION_H_
#define GPIPE_WORKER_EXPORTED_STATE_INSPECTION_H_

#include <google/protobuf/repeated_ptr_field.h>

#include <set>
#include <string>
#include <string_view>
#include <vector>

#include "absl/status/status.h"
#include "gpipe/v1/worker_session.pb.h"
#include "worker/exported/archive.h"
#include "worker/model/precision.h"

namespace gpipe::worker {

// What an archive's parameters and buffers are, in the layers that have them. What was not trained when it was exported
// (requires_grad=False: the model under an adapter) takes the memory of any parameter, and is not trainable. Both
// arguments must outlive it. Used by one thread.
class StateInspection {
 public:
  StateInspection(const Archive& archive, const v1::Inspect& request)
      : archive_(archive), request_(request), precision_(Precision::Of(request.precision(), /*layer_list=*/false)) {}

  // For training: that there is something to train, and that it can be updated and stored. INVALID_ARGUMENT for
  // `field`; for `train.precision`, where no trained parameter is of the type that is to be computed in.
  absl::Status Check(std::string_view field) const;

  // That the program, which writes to these of its values, writes to no parameter that has a master: what it writes
  // would be lost. INVALID_ARGUMENT for `train.precision`.
  absl::Status CheckWritten(const std::set<std::string>& written) const;

  // The parameters and buffers among what a part is bound to (Units::InputsOf), each once, whatever names it has.
  void Describe(const std::vector<const exported::Input*>& inputs, v1::LayerInfo& layer) const;
  // What no part uses is in state_dict() all the same; it belongs where the tensor before it there does.
  void DescribeUnused(google::protobuf::RepeatedPtrField<v1::LayerInfo>& layers) const;

 private:
  bool IsTrained(const std::string& name) const;
  absl::StatusOr<bool> HasMaster(const std::string& name) const;
  absl::Status CheckPrecision() const;
  void Add(const std::string& name, v1::LayerInfo& layer) const;

  const Archive& archive_;
  const v1::Inspect& request_;
  const Precision precision_;
};

}  // namespace gpipe::worker

#endif  // GPIPE_WORKER_EXPORTED_STATE_INSPECTION_H_
