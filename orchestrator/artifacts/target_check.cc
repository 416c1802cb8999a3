// CheckTargets: the values of class targets, which no header tells.

#include <algorithm>
#include <cerrno>
#include <fstream>
#include <vector>

#include "absl/strings/str_cat.h"
#include "common/field_error.h"
#include "common/file.h"
#include "common/spec/target_types.h"
#include "common/status_macros.h"
#include "orchestrator/artifacts/data_files.h"
#include "orchestrator/artifacts/input_check.h"

namespace gpipe::orchestrator {
namespace {

constexpr uint64_t kPieceBytes = 1 << 20;

struct Classes {
  int64_t count;
  int64_t ignore_index;

  bool Allows(int64_t value) const { return (value >= 0 && value < count) || value == ignore_index; }
};

absl::Status BadClass(std::string_view field, int64_t sample, int64_t value, const Classes& classes) {
  return FieldError(field, absl::StrCat("sample ", sample, " has class ", value, ", which is not in [0, ",
                                        classes.count, ") and not ignore_index ", classes.ignore_index));
}

// Of one file; `first` is the number of its first sample in the data set. Files are little-endian, as are the machines
// this runs on.
template <typename Number>
absl::Status CheckPart(std::string_view field, const data::SampleTable& table, const data::SampleTensor& target,
                       const data::Part& part, int64_t first, const Classes& classes) {
  const data::DataPath& file = table.files[part.file];
  std::ifstream input(file.path, std::ios::binary);
  input.seekg(static_cast<std::streamoff>(part.begin));
  const uint64_t total = static_cast<uint64_t>(part.samples * target.elements());
  std::vector<Number> piece(std::min<uint64_t>(total, kPieceBytes / sizeof(Number)));
  for (uint64_t done = 0; done < total; done += piece.size()) {
    piece.resize(std::min<uint64_t>(total - done, piece.size()));
    input.read(reinterpret_cast<char*>(piece.data()), static_cast<std::streamsize>(piece.size() * sizeof(Number)));
    if (!input) return ErrnoStatus(EIO, "cannot read", file.path);
    auto bad = std::find_if(piece.begin(), piece.end(), [&](Number value) { return !classes.Allows(value); });
    if (bad == piece.end()) continue;
    int64_t index = static_cast<int64_t>(done) + (bad - piece.begin());
    return BadClass(field, first + index / target.elements(), *bad, classes);
  }
  return absl::OkStatus();
}

absl::Status CheckValues(std::string_view field, const data::SampleTable& table, const data::SampleTensor& target,
                         const Classes& classes) {
  const auto check = target.dtype == v1::DATA_TYPE_UINT8 ? CheckPart<uint8_t> : CheckPart<int64_t>;
  int64_t first = 0;
  for (const data::Part& part : target.parts) {
    GPIPE_RETURN_IF_ERROR(check(field, table, target, part, first, classes));
    first += part.samples;
  }
  return absl::OkStatus();
}

// Of tokens only some are looked at: a worker that reads one that is too large says so.
absl::Status CheckTokens(const std::string& field, const data::SampleTable& table, const Classes& classes) {
  GPIPE_ASSIGN_OR_RETURN(const int64_t largest, data::LargestTokenSeen(table));
  if (classes.Allows(largest)) return absl::OkStatus();
  return FieldError(field + ".tokens", absl::StrCat("has the token ", largest, ", but the model's output has ",
                                                    classes.count, " classes"));
}

absl::Status CheckDataset(const v1::Dataset& dataset, const std::string& field, const SpecFiles& where,
                          const Classes& classes) {
  if (dataset.has_random()) {
    if (dataset.random().classes() <= classes.count) return absl::OkStatus();
    return FieldError(field + ".random.classes",
                      absl::StrCat("is ", dataset.random().classes(), ", but the model's output has ", classes.count));
  }
  GPIPE_ASSIGN_OR_RETURN(const data::SampleTable table, OpenSamples(field, dataset, where));
  if (table.tokens) return CheckTokens(field, table, classes);
  auto target = table.tensors.find(dataset.target());
  if (target == table.tensors.end()) return FieldError(field + ".target", "is no tensor of the file");
  if (spec::IsFloating(target->second.dtype)) return absl::OkStatus();  // Probabilities.
  return CheckValues(field + ".target", table, target->second, classes);
}

}  // namespace

absl::Status CheckTargets(const v1::JobSpec& spec, const FileMap& files, const ArtifactStore& store, int64_t classes,
                          const SharedTables& shared) {
  const SpecFiles where{files, store, shared};
  const v1::Train& train = spec.train();
  if (!train.loss().has_cross_entropy()) return absl::OkStatus();
  constexpr int64_t kDefaultIgnoreIndex = -100;
  const v1::CrossEntropy& loss = train.loss().cross_entropy();
  Classes allowed{.count = classes,
                  .ignore_index = loss.has_ignore_index() ? loss.ignore_index() : kDefaultIgnoreIndex};
  GPIPE_RETURN_IF_ERROR(CheckDataset(train.dataset(), "train.dataset", where, allowed));
  if (!train.has_evaluate()) return absl::OkStatus();
  return CheckDataset(train.evaluate().dataset(), "train.evaluate.dataset", where, allowed);
}

}  // namespace gpipe::orchestrator
