#include "orchestrator/artifacts/input_check.h"

#include <filesystem>
#include <optional>
#include <string>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "common/field_error.h"
#include "common/safetensors/header.h"
#include "common/string_view.h"
#include "orchestrator/artifacts/data_files.h"

namespace gpipe::orchestrator {
namespace {

constexpr size_t kNamesShown = 20;

// One tensor, cut into samples.
struct Samples {
  int64_t count = 0;
  std::vector<int64_t> shape;
  v1::DataType dtype = v1::DATA_TYPE_UNSPECIFIED;
};

struct DatasetFacts {
  Samples input;
  Samples target;
};

std::string ShapeText(const std::vector<int64_t>& shape) { return absl::StrCat("[", absl::StrJoin(shape, ", "), "]"); }

absl::string_view DtypeText(v1::DataType dtype) { return AbslView(safetensors::DtypeName(dtype)); }

std::string NamesText(const safetensors::Header& header) {
  std::vector<std::string> names;
  for (const auto& [name, info] : header.tensors) {
    if (names.size() == kNamesShown) {
      names.push_back("...");
      break;
    }
    names.push_back(name);
  }
  return names.empty() ? "no tensors" : absl::StrJoin(names, ", ");
}

InputFacts FactsOf(const Samples& input) {
  InputFacts facts;
  facts.samples = input.count;
  facts.input_shape = input.shape;
  facts.input_dtype = input.dtype;
  return facts;
}

// Checks one job and collects what is wrong with it.
class Checker {
 public:
  Checker(const v1::JobSpec& spec, const FileMap& files, const ArtifactStore& store)
      : spec_(spec), files_(files), store_(store) {}

  absl::StatusOr<InputFacts> Check() {
    if (!spec_.model().weights().empty()) Open("model.weights", spec_.model().weights());
    InputFacts facts = spec_.has_train() ? CheckTrain() : CheckInfer();
    if (!errors_.empty()) return errors_.ToStatus();
    return facts;
  }

 private:
  std::optional<safetensors::Header> Open(std::string_view field, const std::string& path) {
    auto header = OpenDataFile(field, path, files_, store_);
    if (header.ok()) return header->header;
    for (const FieldViolation& violation : FieldViolations(header.status())) {
      errors_.Add(violation.field, violation.description);
    }
    return std::nullopt;
  }

  std::optional<Samples> Find(const safetensors::Header& header, std::string_view field, const std::string& name) {
    auto found = header.tensors.find(name);
    if (found == header.tensors.end()) {
      errors_.Add(field, absl::StrCat("there is no tensor '", name, "' in the file, which has: ", NamesText(header)));
      return std::nullopt;
    }
    const std::vector<int64_t>& shape = found->second.shape;
    if (shape.empty()) {
      errors_.Add(field, absl::StrCat("tensor '", name, "' is a single number, and has no samples"));
      return std::nullopt;
    }
    return Samples{.count = shape[0], .shape = {shape.begin() + 1, shape.end()}, .dtype = found->second.dtype};
  }

  void ExpectInputType(const Samples& input, std::string_view field) {
    if (input.dtype == v1::DATA_TYPE_FLOAT32 || input.dtype == v1::DATA_TYPE_INT64) return;
    errors_.Add(field, absl::StrCat("must be F32 or I64, is ", DtypeText(input.dtype)));
  }

  void ExpectTargetType(const Samples& target, std::string_view field) {
    const v1::Loss& loss = spec_.train().loss();
    v1::DataType expected = loss.has_cross_entropy() ? v1::DATA_TYPE_INT64 : v1::DATA_TYPE_FLOAT32;
    if (target.dtype == expected) return;
    absl::string_view name = loss.has_cross_entropy() ? "cross_entropy" : loss.has_mse() ? "mse" : "bce_with_logits";
    errors_.Add(field, absl::StrCat(name, " needs a target that is ", DtypeText(expected), ", this is ",
                                    DtypeText(target.dtype)));
  }

  std::optional<DatasetFacts> CheckRandom(const v1::RandomDataset& random, const std::string& field) {
    DatasetFacts facts;
    facts.input = {random.samples(), {random.input_shape().begin(), random.input_shape().end()}, v1::DATA_TYPE_FLOAT32};
    facts.target = {random.samples(), {}, v1::DATA_TYPE_INT64};
    ExpectTargetType(facts.target, field);
    return facts;
  }

  std::optional<DatasetFacts> CheckDataset(const v1::Dataset& dataset, const std::string& field) {
    if (dataset.has_random()) return CheckRandom(dataset.random(), field + ".random");
    std::optional<safetensors::Header> header = Open(field + ".path", dataset.path());
    if (!header.has_value()) return std::nullopt;
    std::string input_field = field + ".inputs[0]";  // A layer list has one input; the validator sees to that.
    std::optional<Samples> input = Find(*header, input_field, dataset.inputs().empty() ? "input" : dataset.inputs(0));
    std::optional<Samples> target = Find(*header, field + ".target", dataset.target());
    if (!input.has_value() || !target.has_value()) return std::nullopt;
    ExpectInputType(*input, input_field);
    ExpectTargetType(*target, field + ".target");
    if (input->count != target->count) {
      errors_.Add(field + ".target", absl::StrCat("tensors of unequal batch size: '", dataset.target(), "' has ",
                                                  target->count, " samples, the input has ", input->count));
    } else if (input->count == 0) {
      errors_.Add(field + ".path", "the data set is empty: its tensors have 0 samples");
    }
    return DatasetFacts{.input = *std::move(input), .target = *std::move(target)};
  }

  void ExpectSame(const Samples& evaluation, const Samples& train, std::string_view field) {
    if (evaluation.shape != train.shape) {
      errors_.Add(field, absl::StrCat("samples of shape ", ShapeText(evaluation.shape), " differ from training's ",
                                      ShapeText(train.shape)));
    }
    if (evaluation.dtype != train.dtype) {
      errors_.Add(field, absl::StrCat("type ", DtypeText(evaluation.dtype), " differs from training's ",
                                      DtypeText(train.dtype)));
    }
  }

  InputFacts CheckTrain() {
    const v1::Train& train = spec_.train();
    std::optional<DatasetFacts> data = CheckDataset(train.dataset(), "train.dataset");
    std::optional<DatasetFacts> evaluation;
    if (train.has_evaluate()) evaluation = CheckDataset(train.evaluate().dataset(), "train.evaluate.dataset");
    if (!data.has_value()) return {};
    if (evaluation.has_value()) {
      ExpectSame(evaluation->input, data->input, "train.evaluate.dataset.inputs[0]");
      ExpectSame(evaluation->target, data->target, "train.evaluate.dataset.target");
    }
    if (train.drop_last() && data->input.count > 0 && data->input.count < train.batch_size()) {
      errors_.Add("train.drop_last", absl::StrCat("leaves nothing: the data set has ", data->input.count,
                                                  " samples, a batch ", train.batch_size()));
    }
    InputFacts facts = FactsOf(data->input);
    facts.target_shape = data->target.shape;
    facts.target_dtype = data->target.dtype;
    if (evaluation.has_value()) facts.evaluation_samples = evaluation->input.count;
    return facts;
  }

  InputFacts CheckInfer() {
    const v1::Infer& infer = spec_.infer();
    if (infer.has_random_inputs()) {
      const auto& shape = infer.random_inputs().shape();
      if (shape.empty()) {
        errors_.Add("infer.random_inputs.shape", "must begin with the number of samples");
        return {};
      }
      return FactsOf({shape[0], {shape.begin() + 1, shape.end()}, v1::DATA_TYPE_FLOAT32});
    }
    std::optional<safetensors::Header> header = Open("infer.inputs", infer.inputs());
    if (!header.has_value()) return {};
    std::optional<Samples> input = Find(*header, "infer.inputs", "input");
    if (!input.has_value()) return {};
    ExpectInputType(*input, "infer.inputs");
    if (input->count == 0) errors_.Add("infer.inputs", "the data set is empty: its tensors have 0 samples");
    return FactsOf(*input);
  }

  const v1::JobSpec& spec_;
  const FileMap& files_;
  const ArtifactStore& store_;
  FieldErrors errors_;
};

}  // namespace

absl::StatusOr<InputFacts> CheckInputs(const v1::JobSpec& spec, const FileMap& files, const ArtifactStore& store) {
  return Checker(spec, files, store).Check();
}

}  // namespace gpipe::orchestrator
