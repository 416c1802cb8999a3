#include "orchestrator/artifacts/input_check.h"

#include <algorithm>
#include <filesystem>
#include <optional>
#include <string>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "common/field_error.h"
#include "common/plan/shape.h"
#include "common/safetensors/header.h"
#include "common/spec/client_data.h"
#include "common/spec/target_types.h"
#include "common/spec/unbatched.h"
#include "common/string_view.h"
#include "orchestrator/artifacts/data_files.h"

namespace gpipe::orchestrator {
namespace {

constexpr size_t kNamesShown = 20;

// One tensor, cut into samples, or a whole one that has none.
struct Samples {
  int64_t count = 0;
  std::vector<int64_t> shape;
  v1::DataType dtype = v1::DATA_TYPE_UNSPECIFIED;
  bool whole = false;
};

struct NamedSamples {
  std::string name;
  Samples samples;
};

// The first input that has samples; null: none has.
const NamedSamples* Counted(const std::vector<NamedSamples>& inputs) {
  const auto found = std::ranges::find_if(inputs, [](const NamedSamples& input) { return !input.samples.whole; });
  return found == inputs.end() ? nullptr : &*found;
}

struct DatasetFacts {
  std::vector<NamedSamples> inputs;  // At least one that has samples.
  std::optional<Samples> target;     // With a loss that takes one.

  int64_t count() const { return Counted(inputs)->samples.count; }
};

std::string ShapeText(const std::vector<int64_t>& shape) { return absl::StrCat("[", absl::StrJoin(shape, ", "), "]"); }

absl::string_view DtypeText(v1::DataType dtype) { return AbslView(safetensors::DtypeName(dtype)); }

std::string NamesText(const data::SampleTable& table) {
  std::vector<std::string> names;
  for (const auto& [name, tensor] : table.tensors) {
    if (names.size() == kNamesShown) {
      names.push_back("...");
      break;
    }
    names.push_back(name);
  }
  return names.empty() ? "no tensors" : absl::StrJoin(names, ", ");
}

// Of the tensors that a model may take: those of a type that nothing here reads are for somebody else.
std::vector<std::string> NamesOf(const data::SampleTable& table) {
  std::vector<std::string> names;
  for (const auto& [name, tensor] : table.tensors) {
    if (tensor.dtype != v1::DATA_TYPE_UNSPECIFIED) names.push_back(name);
  }
  return names;
}

std::vector<v1::ModelValue> ValuesOf(const std::vector<NamedSamples>& inputs) {
  std::vector<v1::ModelValue> values;
  for (const auto& [name, samples] : inputs) {
    v1::ModelValue& value = values.emplace_back();
    value.set_name(name);
    *value.mutable_shape() = samples.whole ? FixedShape(samples.shape) : BatchShape(samples.shape);
    value.set_dtype(samples.dtype);
  }
  return values;
}

// REQUIRES: one has samples.
InputFacts FactsOf(const std::vector<NamedSamples>& inputs) {
  InputFacts facts;
  facts.samples = Counted(inputs)->samples.count;
  facts.inputs = ValuesOf(inputs);
  return facts;
}

// Checks one job and collects what is wrong with it.
class Checker {
 public:
  Checker(const v1::JobSpec& spec, const SpecFiles& where) : spec_(spec), where_(where) {}

  absl::StatusOr<InputFacts> Check() {
    if (!spec_.model().weights().empty()) errors_.Add(OpenWeights(spec_, where_).status());
    InputFacts facts = spec_.has_train() ? CheckTrain() : CheckInfer();
    if (!errors_.empty()) return errors_.ToStatus();
    return facts;
  }

 private:
  std::optional<data::SampleTable> Keep(absl::StatusOr<data::SampleTable> table) {
    if (table.ok()) return *std::move(table);
    errors_.Add(table.status());
    return std::nullopt;
  }

  // `whole`: as a tensor that has no samples.
  std::optional<Samples> Find(const data::SampleTable& table, std::string_view field, const std::string& name,
                              bool whole = false) {
    auto found = table.tensors.find(name);
    if (found == table.tensors.end()) {
      const char* where = table.files.size() > 1 ? "files, which have: " : "file, which has: ";
      errors_.Add(field, absl::StrCat("there is no tensor '", name, "' in the ", where, NamesText(table)));
      return std::nullopt;
    }
    const data::SampleTensor& tensor = found->second;
    if (tensor.single && !whole) {
      errors_.Add(field, absl::StrCat("tensor '", name, "' is a single number, and has no samples"));
      return std::nullopt;
    }
    if (whole && !data::IsInOneFile(table, name)) {
      errors_.Add(field, absl::StrCat("tensor '", name, "' is `unbatched`, and must be in one file: the data's only ",
                                      "one, or '", name, ".npy'"));
      return std::nullopt;
    }
    if (tensor.dtype == v1::DATA_TYPE_UNSPECIFIED) {
      errors_.Add(field, absl::StrCat("tensor '", name, "' is of a type that nothing here reads"));
      return std::nullopt;
    }
    return Samples{.count = tensor.samples,
                   .shape = whole ? tensor.whole_shape() : tensor.shape,
                   .dtype = tensor.dtype,
                   .whole = whole};
  }

  // An exported model says itself what it takes.
  void ExpectInputType(const Samples& input, std::string_view field) {
    if (spec_.model().has_exported()) return;
    if (input.dtype == v1::DATA_TYPE_FLOAT32 || input.dtype == v1::DATA_TYPE_INT64) return;
    errors_.Add(field, absl::StrCat("must be F32 or I64, is ", DtypeText(input.dtype)));
  }

  void ExpectTargetType(const Samples& target, std::string_view field) {
    const std::string problem = spec::ProblemWithTarget(spec_.train().loss(), target.dtype);
    if (!problem.empty()) errors_.Add(field, problem);
  }

  bool HasTarget() const { return spec::HasTarget(spec_.train().loss()); }

  std::optional<DatasetFacts> CheckRandom(const v1::RandomDataset& random, const std::string& field) {
    DatasetFacts facts;
    facts.inputs = {
        {"input",
         {random.samples(), {random.input_shape().begin(), random.input_shape().end()}, v1::DATA_TYPE_FLOAT32}}};
    if (!HasTarget()) return facts;
    facts.target = {random.samples(), {}, v1::DATA_TYPE_INT64};
    ExpectTargetType(*facts.target, field);
    return facts;
  }

  // What is planned for is one usual mini-batch.
  DatasetFacts FactsOfClient(const v1::ClientData& client) const {
    DatasetFacts facts;
    for (const v1::ClientInput& input : client.inputs()) {
      const Samples samples{.count = spec_.train().batch_size(),
                            .shape = {input.shape().begin(), input.shape().end()},
                            .dtype = *spec::ClientDtype(input.dtype())};
      facts.inputs.push_back({input.name(), samples});
    }
    return facts;
  }

  std::optional<DatasetFacts> CheckDataset(const v1::Dataset& dataset, const std::string& field) {
    if (dataset.has_random()) return CheckRandom(dataset.random(), field + ".random");
    if (dataset.has_client()) return FactsOfClient(dataset.client());
    std::optional<data::SampleTable> table = Keep(OpenSamples(field, dataset, where_));
    if (!table.has_value()) return std::nullopt;
    DatasetFacts facts;
    if (HasTarget()) facts.target = Find(*table, field + ".target", dataset.target());
    for (int i = 0; i < std::max(1, dataset.inputs_size()); ++i) {
      const std::string name = dataset.inputs().empty() ? "input" : dataset.inputs(i);
      const std::string input_field = absl::StrCat(field, ".inputs[", i, "]");
      std::optional<Samples> input = Find(*table, input_field, name, spec::IsUnbatched(dataset.unbatched(), name));
      if (!input.has_value()) continue;
      ExpectInputType(*input, input_field);
      if (facts.target && !input->whole) ExpectAsMany(*facts.target, dataset.target(), *input, name, field + ".target");
      facts.inputs.push_back({name, *std::move(input)});
    }
    if (facts.target) ExpectTargetType(*facts.target, field + ".target");
    const bool complete = static_cast<int>(facts.inputs.size()) == std::max(1, dataset.inputs_size());
    if (!complete || facts.target.has_value() != HasTarget()) return std::nullopt;
    const NamedSamples& first = *Counted(facts.inputs);
    for (size_t i = 1; i < facts.inputs.size() && !facts.target; ++i) {
      const auto& [name, samples] = facts.inputs[i];
      if (samples.whole) continue;
      ExpectAsMany(samples, name, first.samples, first.name, absl::StrCat(field, ".inputs[", i, "]"));
    }
    if (facts.count() == 0) ExpectSamples(dataset, field);
    return facts;
  }

  void ExpectSamples(const v1::Dataset& dataset, const std::string& field) {
    if (!dataset.has_tokens()) {
      return errors_.Add(field + ".path", "the data set is empty: its tensors have 0 samples");
    }
    errors_.Add(field + ".tokens.sequence_length",
                absl::StrCat("leaves nothing: no file has the ", dataset.tokens().sequence_length() + 1,
                             " tokens of one window and its last target"));
  }

  void ExpectAsMany(const Samples& samples, const std::string& name, const Samples& others, const std::string& other,
                    std::string_view field) {
    if (samples.count == others.count) return;
    const char* hint = spec_.model().has_exported() ? "; an input without samples is named in `unbatched`" : "";
    errors_.Add(field, absl::StrCat("tensors of unequal batch size: '", name, "' has ", samples.count, " samples, '",
                                    other, "' has ", others.count, hint));
  }

  void ExpectSameType(const Samples& evaluation, const Samples& train, std::string_view field) {
    if (evaluation.dtype == train.dtype) return;
    errors_.Add(
        field, absl::StrCat("type ", DtypeText(evaluation.dtype), " differs from training's ", DtypeText(train.dtype)));
  }

  // Of a layer list. An exported model says itself which sizes it takes.
  void ExpectSameShape(const Samples& evaluation, const Samples& train, std::string_view field) {
    if (evaluation.shape == train.shape || spec_.model().has_exported()) return;
    errors_.Add(field, absl::StrCat("samples of shape ", ShapeText(evaluation.shape), " differ from training's ",
                                    ShapeText(train.shape), "; an exported model with dynamic sizes may have others"));
  }

  void ExpectSame(const DatasetFacts& evaluation, const DatasetFacts& train) {
    const std::string field = "train.evaluate.dataset.";
    for (size_t i = 0; i < std::min(evaluation.inputs.size(), train.inputs.size()); ++i) {
      const std::string input = absl::StrCat(field, "inputs[", i, "]");
      ExpectSameShape(evaluation.inputs[i].samples, train.inputs[i].samples, input);
      ExpectSameType(evaluation.inputs[i].samples, train.inputs[i].samples, input);
    }
    if (evaluation.inputs.size() != train.inputs.size()) {
      errors_.Add(field + "inputs",
                  absl::StrCat("names ", evaluation.inputs.size(), " tensors, training has ", train.inputs.size()));
    }
    if (!train.target) return;
    ExpectSameShape(*evaluation.target, *train.target, field + "target");
    ExpectSameType(*evaluation.target, *train.target, field + "target");
  }

  // What the plan needs to know where some tensor of the evaluation data has other sizes.
  void AddEvaluation(const DatasetFacts& evaluation, const DatasetFacts& train, InputFacts& facts) {
    facts.evaluation_samples = evaluation.count();
    const auto shape_of = [](const NamedSamples& input) { return input.samples.shape; };
    const bool same = std::ranges::equal(evaluation.inputs, train.inputs, {}, shape_of, shape_of) &&
                      (!train.target || evaluation.target->shape == train.target->shape);
    if (same) return;
    facts.evaluation_inputs = ValuesOf(evaluation.inputs);
    if (evaluation.target) facts.evaluation_target_shape = evaluation.target->shape;
    // The job would begin with a look at training samples, by the evaluation program.
    const v1::Loss& loss = spec_.train().loss();
    const bool looks = loss.has_model_output() && loss.model_output().mean_of() == v1::LOSS_MEAN_UNSPECIFIED;
    if (!looks || spec_.pipeline().chunks() < 2) return;
    errors_.Add("train.loss.model_output.mean_of",
                "is required where evaluation data has other sizes than training data: samples, targets, count or sum");
  }

  InputFacts CheckTrain() {
    const v1::Train& train = spec_.train();
    std::optional<DatasetFacts> data = CheckDataset(train.dataset(), "train.dataset");
    std::optional<DatasetFacts> evaluation;
    if (train.has_evaluate()) evaluation = CheckDataset(train.evaluate().dataset(), "train.evaluate.dataset");
    if (!data.has_value()) return {};
    if (evaluation.has_value()) ExpectSame(*evaluation, *data);
    const int64_t samples = data->count();
    const bool wants_gradients = train.dataset().client().input_gradients();
    if (train.drop_last() && samples > 0 && samples < train.batch_size()) {
      errors_.Add("train.drop_last",
                  absl::StrCat("leaves nothing: the data set has ", samples, " samples, a batch ", train.batch_size()));
    }
    InputFacts facts = FactsOf(data->inputs);
    for (v1::ModelValue& input : facts.inputs) {
      input.set_requires_grad(wants_gradients && IsDifferentiable(input.dtype()));
    }
    if (data->target) {
      facts.target_shape = data->target->shape;
      facts.target_dtype = data->target->dtype;
    }
    if (evaluation.has_value()) AddEvaluation(*evaluation, *data, facts);
    return facts;
  }

  InputFacts CheckInfer() {
    const v1::Infer& infer = spec_.infer();
    if (infer.has_random_inputs()) return CheckRandom(infer.random_inputs());
    std::optional<data::SampleTable> table =
        Keep(OpenSamples("infer.inputs", infer.inputs(), /*tokens=*/nullptr, where_));
    if (!table.has_value()) return {};
    // An exported model takes those of the tensors that have its inputs' names.
    std::vector<std::string> names = {"input"};
    if (spec_.model().has_exported()) names = NamesOf(*table);
    std::vector<NamedSamples> inputs;
    for (const std::string& name : names) {
      std::optional<Samples> input = Find(*table, "infer.inputs", name, spec::IsUnbatched(infer.unbatched(), name));
      if (!input.has_value()) continue;
      ExpectInputType(*input, "infer.inputs");
      inputs.push_back({name, *std::move(input)});
    }
    ExpectUnbatched(infer, *table);
    const NamedSamples* first = Counted(inputs);
    if (first == nullptr) {
      if (errors_.empty()) errors_.Add("infer.inputs", "there is no tensor with samples in the file");
      return {};
    }
    for (const auto& [name, samples] : inputs) {
      if (!samples.whole) ExpectAsMany(samples, name, first->samples, first->name, "infer.inputs");
    }
    if (first->samples.count == 0) errors_.Add("infer.inputs", "the data set is empty: its tensors have 0 samples");
    return FactsOf(inputs);
  }

  InputFacts CheckRandom(const v1::RandomInputs& random) {
    const auto& shape = random.shape();
    if (!shape.empty())
      return FactsOf({{"input", {shape[0], {shape.begin() + 1, shape.end()}, v1::DATA_TYPE_FLOAT32}}});
    errors_.Add("infer.random_inputs.shape", "must begin with the number of samples");
    return {};
  }

  void ExpectUnbatched(const v1::Infer& infer, const data::SampleTable& table) {
    for (int i = 0; i < infer.unbatched_size(); ++i) {
      if (table.tensors.contains(infer.unbatched(i))) continue;
      errors_.Add(
          absl::StrCat("infer.unbatched[", i, "]"),
          absl::StrCat("there is no tensor '", infer.unbatched(i), "' in the data, which has: ", NamesText(table)));
    }
  }

  const v1::JobSpec& spec_;
  const SpecFiles where_;
  FieldErrors errors_;
};

}  // namespace

absl::StatusOr<InputFacts> CheckInputs(const v1::JobSpec& spec, const FileMap& files, const ArtifactStore& store,
                                       const SharedTables& shared) {
  return Checker(spec, {files, store, shared}).Check();
}

}  // namespace gpipe::orchestrator
