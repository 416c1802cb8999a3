#ifndef GPIPE_WORKER_EXPORTED_VALUE_TABLE_H_
#define GPIPE_WORKER_EXPORTED_VALUE_TABLE_H_

#include <ATen/core/Tensor.h>

#include <array>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "absl/status/statusor.h"
#include "common/exported/size_expression.h"
#include "common/plan/shape.h"
#include "gpipe/v1/plan.pb.h"
#include "worker/exported/archive.h"
#include "worker/exported/units.h"
#include "worker/model/tensor_layout.h"

namespace gpipe::worker {

// What the values of an exported program are like in a job, from what torch.export has written of them into the
// archive: their types, and their sizes as expressions in those of the inputs. Nothing runs and no weight is read.
// Whether the program keeps to it, a worker sees when it runs: a value of another size or type is refused where it is
// sent.
class ValueTable {
 public:
  // `inputs` are the samples' shapes, in the order of the program's inputs; parameters whose names begin with one of
  // `frozen` have no gradient. `archive` and `units` must outlive the table.
  // INVALID_ARGUMENT for `field`: two inputs have unequal sizes where the program wants equal ones.
  static absl::StatusOr<ValueTable> Create(const Archive& archive, const Units& units,
                                           const std::vector<v1::ModelValue>& inputs,
                                           const std::vector<std::string>& frozen, std::string_view field);

  // Whether it has strides and its type can be sent, and each of its dimensions is a fixed size plus a multiple of the
  // batch.
  bool CanDescribe(const std::string& value) const { return ShapeOf(value).has_value() && TypeOf(value).has_value(); }
  // Whether only a run tells a tensor's size.
  bool DependsOnData(const std::string& value) const;
  // Why a tensor's size is not so, for people: `the size of 'index' (model.py:12: y = x[x > 0]) depends on what the
  // data is`. Empty when it is, or when the value is no tensor.
  std::string ProblemWithSize(const std::string& value) const;
  // REQUIRES: CanDescribe.
  v1::ModelValue Describe(const std::string& value) const;
  // A tensor without memory, of so many samples. REQUIRES: CanDescribe.
  at::Tensor Meta(const std::string& value, int64_t samples) const;

  // Of any value, parameters too; nullopt where it is not known.
  std::optional<std::vector<int64_t>> SizesOf(const std::string& value, int64_t samples) const;
  std::optional<c10::ScalarType> TypeOf(const std::string& value) const;
  // The product of sizes of the program; nullopt where it is no fixed one plus a multiple of the batch.
  std::optional<v1::Dimension> ProductOf(const std::vector<exported::Size>& factors) const;

 private:
  // Two sizes tell how a dimension depends on the batch, the third one whether it depends in that way.
  static constexpr std::array<int64_t, 3> kBatches = {2, 3, 5};

  ValueTable(const Archive& archive, const Units& units) : program_(archive.program()), index_(units.index()) {}

  // Gives the symbols in the sizes of an input the data's sizes.
  absl::Status Bind(const exported::UserInput& input, const v1::ModelValue& data, std::string_view field);
  std::optional<Shape> ShapeOf(const std::string& value) const;
  // What the program says of it; empty where that depends on the batch or is not known.
  DimensionOrder OrderOfValue(const std::string& value) const;

  const exported::Program& program_;
  const ValueIndex& index_;
  std::array<exported::Symbols, kBatches.size()> symbols_;
  std::vector<bool> gradients_;  // By value.
};

}  // namespace gpipe::worker

#endif  // GPIPE_WORKER_EXPORTED_VALUE_TABLE_H_
