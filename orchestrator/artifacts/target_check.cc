// CheckTargets: the values of class targets, which no header tells.

#include <algorithm>
#include <cerrno>
#include <fstream>
#include <numeric>
#include <vector>

#include "absl/strings/str_cat.h"
#include "common/field_error.h"
#include "common/file.h"
#include "common/status_macros.h"
#include "orchestrator/artifacts/data_files.h"
#include "orchestrator/artifacts/input_check.h"

namespace gpipe::orchestrator {
namespace {

constexpr uint64_t kPieceValues = (1 << 20) / sizeof(int64_t);

struct Classes {
  int64_t count;
  int64_t ignore_index;

  bool Allows(int64_t value) const { return (value >= 0 && value < count) || value == ignore_index; }
};

absl::Status BadClass(std::string_view field, int64_t sample, int64_t value, const Classes& classes) {
  return FieldError(field, absl::StrCat("sample ", sample, " has class ", value, ", which is not in [0, ",
                                        classes.count, ") and not ignore_index ", classes.ignore_index));
}

int64_t ValuesPerSample(const std::vector<int64_t>& shape) {
  return std::accumulate(shape.begin() + 1, shape.end(), int64_t{1}, std::multiplies<>());
}

// safetensors is little-endian, as are the machines this runs on.
absl::Status CheckValues(std::string_view field, const DataFile& file, const safetensors::TensorInfo& target,
                         const Classes& classes) {
  std::ifstream input(file.path, std::ios::binary);
  input.seekg(static_cast<std::streamoff>(target.begin));
  const uint64_t total = (target.end - target.begin) / sizeof(int64_t);
  std::vector<int64_t> piece(std::min(total, kPieceValues));
  for (uint64_t done = 0; done < total; done += piece.size()) {
    piece.resize(std::min(total - done, kPieceValues));
    input.read(reinterpret_cast<char*>(piece.data()), static_cast<std::streamsize>(piece.size() * sizeof(int64_t)));
    if (!input) return ErrnoStatus(EIO, "cannot read", file.path);
    auto bad = std::find_if(piece.begin(), piece.end(), [&](int64_t value) { return !classes.Allows(value); });
    if (bad == piece.end()) continue;
    int64_t index = static_cast<int64_t>(done) + (bad - piece.begin());
    return BadClass(field, index / ValuesPerSample(target.shape), *bad, classes);
  }
  return absl::OkStatus();
}

absl::Status CheckDataset(const v1::Dataset& dataset, const std::string& field, const FileMap& files,
                          const ArtifactStore& store, const Classes& classes) {
  if (dataset.has_random()) {
    if (dataset.random().classes() <= classes.count) return absl::OkStatus();
    return FieldError(field + ".random.classes",
                      absl::StrCat("is ", dataset.random().classes(), ", but the model's output has ", classes.count));
  }
  GPIPE_ASSIGN_OR_RETURN(DataFile file, OpenDataFile(field + ".path", dataset.path(), files, store));
  auto target = file.header.tensors.find(dataset.target());
  if (target == file.header.tensors.end() || target->second.dtype != v1::DATA_TYPE_INT64) {
    return FieldError(field + ".target", "is not an I64 tensor of the file");
  }
  return CheckValues(field + ".target", file, target->second, classes);
}

}  // namespace

absl::Status CheckTargets(const v1::JobSpec& spec, const FileMap& files, const ArtifactStore& store, int64_t classes) {
  const v1::Train& train = spec.train();
  if (!train.loss().has_cross_entropy()) return absl::OkStatus();
  constexpr int64_t kDefaultIgnoreIndex = -100;
  const v1::CrossEntropy& loss = train.loss().cross_entropy();
  Classes allowed{.count = classes,
                  .ignore_index = loss.has_ignore_index() ? loss.ignore_index() : kDefaultIgnoreIndex};
  GPIPE_RETURN_IF_ERROR(CheckDataset(train.dataset(), "train.dataset", files, store, allowed));
  if (!train.has_evaluate()) return absl::OkStatus();
  return CheckDataset(train.evaluate().dataset(), "train.evaluate.dataset", files, store, allowed);
}

}  // namespace gpipe::orchestrator
