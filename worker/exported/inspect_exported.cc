#include "worker/exported/inspect_exported.h"

#include <ATen/ATen.h>

#include <algorithm>
#include <optional>
#include <set>
#include <utility>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "common/field_error.h"
#include "common/grpc_status.h"
#include "common/plan/shape.h"
#include "common/safetensors/header.h"
#include "common/status_macros.h"
#include "worker/data/tensor_file.h"
#include "worker/exported/argument_source.h"
#include "worker/exported/batch_statistics.h"
#include "worker/exported/build.h"
#include "worker/exported/evaluation.h"
#include "worker/exported/input_match.h"
#include "worker/exported/paired_cuts.h"
#include "worker/exported/part_profiler.h"
#include "worker/exported/state_inspection.h"
#include "worker/exported/units.h"
#include "worker/exported/value_table.h"
#include "worker/model/loss_check.h"
#include "worker/model/loss_profile.h"
#include "worker/torch_status.h"

namespace gpipe::worker {
namespace {

constexpr char kModel[] = "model.exported.path";
constexpr char kLoss[] = "train.loss";

const std::string& NamedOutput(const v1::Loss& loss) {
  if (loss.has_mse()) return loss.mse().output();
  if (loss.has_model_output()) return loss.model_output().output();
  return loss.has_bce_with_logits() ? loss.bce_with_logits().output() : loss.cross_entropy().output();
}

// What the archive says about itself is about the file that the spec names.
absl::Status AboutModel(const absl::Status& status) {
  const bool is_elsewhere =
      absl::IsResourceExhausted(status) || absl::IsUnavailable(status) || absl::IsDataLoss(status);
  if (status.ok() || !FieldViolations(status).empty() || is_elsewhere) return status;
  return FieldError(kModel, std::string(status.message()));
}

// The same of a model's other program, which a job that only trains does without.
absl::Status AboutEvaluation(const absl::Status& status) {
  const absl::Status about = AboutModel(status);
  const std::vector<FieldViolation> violations = FieldViolations(about);
  if (violations.empty() || absl::StartsWith(violations.front().field, "train.evaluate")) return about;
  return FieldError("train.evaluate", absl::StrCat("the model cannot be evaluated: ", status.message()));
}

// Data is read for both by the training program's names.
absl::Status CheckSameInputs(const exported::Program& training, const exported::Program& evaluation) {
  const auto value_of = [](const exported::UserInput& input) { return input.value; };
  if (std::ranges::equal(training.user_inputs, evaluation.user_inputs, {}, value_of, value_of)) return absl::OkStatus();
  return absl::InvalidArgumentError("its inputs have other names in evaluation than in training");
}

// The data of a job for one of the model's programs.
struct InspectedData {
  ProgramData data;
  std::vector<int64_t> target_shape;
};

InspectedData DataOf(const v1::Inspect& request) {
  const bool training = request.has_loss();
  return {{{request.inputs().begin(), request.inputs().end()}, training, training ? "train.dataset" : "infer"},
          {request.target_shape().begin(), request.target_shape().end()}};
}

InspectedData EvaluationDataOf(const v1::Inspect& request) {
  if (request.evaluation_inputs().empty()) return DataOf(request);
  return {{{request.evaluation_inputs().begin(), request.evaluation_inputs().end()}, true, "train.evaluate.dataset"},
          {request.evaluation_target_shape().begin(), request.evaluation_target_shape().end()}};
}

class ExportedInspection {
 public:
  ExportedInspection(const v1::Inspect& request, InspectedData data, const Archive& archive, c10::Device device,
                     v1::Inspected& result)
      : request_(request),
        data_(std::move(data)),
        archive_(archive),
        program_(archive.program()),
        device_(device),
        result_(result) {}

  // Everything but the layers.
  absl::Status Check() {
    GPIPE_ASSIGN_OR_RETURN(const std::vector<v1::ModelValue> inputs, MatchInputs(program_, data_.data));
    GPIPE_RETURN_IF_ERROR(FindOutputs());
    GPIPE_RETURN_IF_ERROR(CheckOperators());
    if (training()) GPIPE_RETURN_IF_ERROR(state_.Check(kModel));
    GPIPE_ASSIGN_OR_RETURN(Units units, Units::Find(archive_));
    units_.emplace(std::move(units));
    if (training()) {
      GPIPE_RETURN_IF_ERROR(state_.CheckWritten(units_->PartOf(0, Nodes(), OutputNames()).written));
    }
    const std::vector<std::string> frozen(request_.freeze().begin(), request_.freeze().end());
    GPIPE_ASSIGN_OR_RETURN(ValueTable values,
                           ValueTable::Create(archive_, *units_, inputs, frozen, data_.data.field()));
    values_.emplace(std::move(values));
    GPIPE_RETURN_IF_ERROR(CheckOutputs());
    return CheckLoss();
  }

  // `evaluation` is the model's other program for that; null: it has none, or is not asked for. REQUIRES: both are
  // checked.
  absl::Status Run(const ExportedInspection* evaluation) {
    FindLayers(evaluation);
    return request_.profile_micro_batch() > 0 ? Profile() : absl::OkStatus();
  }

 private:
  bool training() const { return request_.has_loss(); }

  // In training the one that the loss takes; in inference those that are asked for, or all.
  absl::Status FindOutputs() {
    std::vector<std::string> names(request_.outputs().begin(), request_.outputs().end());
    // A client computes its loss from all of them.
    if (training() && !request_.loss().has_client()) names = {NamedOutput(request_.loss())};
    if (const std::string& count = request_.loss().model_output().count(); !count.empty()) names.push_back(count);
    for (size_t i = 0; i < names.size(); ++i) {
      const std::string field = training() ? kLoss : absl::StrCat("infer.outputs[", i, "]");
      GPIPE_ASSIGN_OR_RETURN(exported::UserOutput output, FindOutput(program_, names[i], field));
      outputs_.push_back(std::move(output));
    }
    if (!names.empty()) return absl::OkStatus();
    for (const exported::UserOutput& output : program_.user_outputs) {
      if (std::holds_alternative<exported::ValueName>(output.value.value)) outputs_.push_back(output);
    }
    return absl::OkStatus();
  }

  // That all of them are here and take these arguments.
  absl::Status CheckOperators() const {
    GraphCode::Part whole{{}, {}, {}, program_.graph.values};
    for (const exported::Input& input : program_.inputs) whole.entering.push_back(input.value);
    for (size_t i = 0; i < program_.graph.nodes.size(); ++i) whole.nodes.emplace_back(i, &program_.graph.nodes[i]);
    return GraphCode::Compile(whole, {c10::kMeta}).status();
  }

  // Only what has the batch first can be cut into samples, and only some types can be stored; a loss may be anything.
  absl::Status CheckOutputs() {
    const auto fits = [&](const exported::UserOutput& output) { return ProblemWith(ValueOf(output)).empty(); };
    if (request_.loss().has_model_output()) return CheckModelLoss();
    if (!training() && request_.outputs().empty()) std::erase_if(outputs_, [&](const auto& o) { return !fits(o); });
    for (size_t i = 0; i < outputs_.size(); ++i) {
      if (fits(outputs_[i])) continue;
      const std::string field = training() ? kLoss : absl::StrCat("infer.outputs[", i, "]");
      return FieldError(
          request_.loss().has_client() ? kModel : field,
          absl::StrCat("the model's output '", outputs_[i].name, "' ", ProblemWith(ValueOf(outputs_[i]))));
    }
    if (outputs_.empty()) return FieldError(kModel, "none of its outputs has the batch first and a type of files");
    return absl::OkStatus();
  }

  // Empty when a file can hold the value, sample by sample.
  std::string ProblemWith(const std::string& value) const {
    const auto meta = program_.graph.values.find(value);
    const auto type = meta == program_.graph.values.end() ? std::nullopt : ToScalarType(meta->second.dtype);
    if (type && !safetensors::IsInFiles(ToDataType(*type))) {
      return absl::StrCat("is ", c10::toString(*type), ", which a safetensors file cannot hold; make it another type");
    }
    const bool fits = values_->CanDescribe(value) && BeginsWithBatch(values_->Describe(value).shape());
    const std::string reason = values_->ProblemWithSize(value);
    return fits ? "" : absl::StrCat("does not have the batch first", reason.empty() ? "" : ": ", reason);
  }

  absl::Status CheckModelLoss() const {
    if (values_->CanDescribe(ValueOf(outputs_.front()))) return absl::OkStatus();
    return FieldError(kLoss, absl::StrCat("the size of the model's output '", outputs_.front().name,
                                          "' depends on what the data is"));
  }

  static const std::string& ValueOf(const exported::UserOutput& output) {
    return std::get<exported::ValueName>(output.value.value).name;
  }

  std::vector<std::string> OutputNames() const {
    std::vector<std::string> values;
    for (const exported::UserOutput& output : outputs_) values.push_back(ValueOf(output));
    return values;
  }

  ProgramCuts Cut() const {
    std::vector<size_t> begins = units_->CutsWhere([&](const std::string& name) { return values_->CanDescribe(name); });
    begins.insert(begins.begin(), 0);
    return {archive_, *units_, std::move(begins)};
  }

  std::vector<PairedCut> FindCuts(const ExportedInspection* evaluation) const {
    const ProgramCuts own = Cut();
    if (evaluation != nullptr) return PairCuts(own, evaluation->Cut());
    std::vector<PairedCut> cuts;
    for (const size_t begin : own.begins) cuts.push_back({begin, 0});
    return cuts;
  }

  size_t Nodes() const { return program_.graph.nodes.size(); }

  void FindLayers(const ExportedInspection* evaluation) {
    const std::vector<PairedCut> cuts = FindCuts(evaluation);
    for (size_t i = 0; i < cuts.size(); ++i) {
      const bool is_last = i + 1 == cuts.size();
      v1::LayerInfo& info = *result_.add_layers();
      FindLayer(cuts[i].training, is_last ? Nodes() : cuts[i + 1].training, info);
      if (evaluation == nullptr) continue;
      evaluation->DescribeEvaluation(cuts[i].evaluation, is_last ? evaluation->Nodes() : cuts[i + 1].evaluation, info);
    }
    state_.DescribeUnused(*result_.mutable_layers());
    for (const exported::UserOutput& output : outputs_) {
      v1::ModelValue& added = *result_.mutable_layers(result_.layers_size() - 1)->add_outputs();
      added = values_->Describe(ValueOf(output));
      added.set_name(output.name);
    }
  }

  void FindLayer(size_t begin, size_t end, v1::LayerInfo& info) {
    parts_.push_back(units_->PartOf(begin, end, OutputNames()));
    info.set_kind(units_->ModuleOf(begin, end));
    info.set_first_node(static_cast<int64_t>(begin));
    const Units::Modules modules = units_->ModulesOf(begin, end);
    info.mutable_begins()->Assign(modules.begin.begin(), modules.begin.end());
    info.mutable_contains()->Assign(modules.within.begin(), modules.within.end());
    DescribeValues(parts_.back(), info);
    state_.Describe(units_->InputsOf(parts_.back()), info);
    for (size_t node = begin; training() && node < end; ++node) {
      const auto counts = ValuesPerChannel(program_.graph, program_.graph.nodes[node], *values_);
      info.mutable_values_per_channel()->Add(counts.begin(), counts.end());
    }
  }

  // What of this program runs where the layer of the training program does. Tensors that only this one has are in the
  // layer, too, and not trained: nothing comes back to them.
  void DescribeEvaluation(size_t begin, size_t end, v1::LayerInfo& info) const {
    const GraphLayer::Part part = units_->PartOf(begin, end, OutputNames());
    v1::EvaluationLayer& layer = *info.mutable_evaluation();
    layer.set_first_node(static_cast<int64_t>(begin));
    DescribeValues(part, layer);
    for (v1::ModelValue& value : *layer.mutable_makes()) value.set_requires_grad(false);
    v1::LayerInfo whole;
    state_.Describe(units_->InputsOf(part), whole);
    for (v1::ModelTensor& tensor : *whole.mutable_tensors()) {
      const auto is_it = [&](const v1::ModelTensor& known) { return known.name() == tensor.name(); };
      if (std::any_of(info.tensors().begin(), info.tensors().end(), is_it)) continue;
      tensor.set_trainable(false);
      *info.add_tensors() = std::move(tensor);
    }
  }

  template <typename LayerMessage>
  void DescribeValues(const GraphLayer::Part& part, LayerMessage& info) const {
    const std::set<std::string> entering(part.entering.begin(), part.entering.end());
    for (const std::string& name : part.entering) info.add_reads(name);
    for (const std::string& name : part.leaving) {
      if (!entering.contains(name)) *info.add_makes() = values_->Describe(name);
    }
  }

  absl::Status CheckLoss() const {
    if (!training() || request_.loss().has_client()) return absl::OkStatus();
    constexpr int64_t kBatch = 2;
    std::vector<int64_t> shape = {kBatch};
    shape.insert(shape.end(), data_.target_shape.begin(), data_.target_shape.end());
    const absl::Status fits = CatchTorch([&] {
      at::Tensor target;
      if (request_.target_dtype() != v1::DATA_TYPE_UNSPECIFIED) {
        target = at::empty(shape, at::device(c10::kMeta).dtype(ToScalarType(request_.target_dtype())));
      }
      const at::Tensor output = values_->Meta(ValueOf(outputs_.front()), kBatch);
      CheckLossFits(request_.loss(), output, target);
      return absl::OkStatus();
    });
    return fits.ok() ? fits : FieldError(kLoss, std::string(fits.message()));
  }

  absl::Status Profile() {
    PartProfiler profiler({archive_, *units_, *values_}, request_, device_, static_cast<int>(parts_.size()));
    std::vector<std::vector<std::string>> entering;
    for (const GraphLayer::Part& part : parts_) entering.push_back(part.entering);
    const std::vector<std::set<std::string>> read_later = ReadLater(entering);
    for (size_t i = 0; i < parts_.size(); ++i) {
      GPIPE_ASSIGN_OR_RETURN(const LayerCost cost, profiler.Measure(parts_[i], read_later[i]));
      AddCost(cost, request_.profile_micro_batch(), {parts_[i].entering, parts_[i].leaving},
              *result_.mutable_layers(static_cast<int>(i)));
    }
    if (!training() || parts_.empty() || request_.loss().has_client()) return absl::OkStatus();
    const std::string& output = ValueOf(outputs_.front());
    GPIPE_ASSIGN_OR_RETURN(const LayerCost loss, profiler.MeasureLoss(output));
    AddCost(loss, request_.profile_micro_batch(), LossValues(output),
            *result_.mutable_layers(result_.layers_size() - 1));
    return absl::OkStatus();
  }

  const v1::Inspect& request_;
  const InspectedData data_;
  const Archive& archive_;
  const exported::Program& program_;
  const c10::Device device_;
  v1::Inspected& result_;
  const StateInspection state_{archive_, request_};
  std::vector<exported::UserOutput> outputs_;
  std::optional<Units> units_;
  std::optional<ValueTable> values_;
  std::vector<GraphLayer::Part> parts_;
};

absl::Status Inspect(const v1::Inspect& request, Artifacts& artifacts, c10::Device device, v1::Inspected& result) {
  const auto ref = request.files().find(request.model().exported().path());
  if (ref == request.files().end()) return absl::InternalError("the request does not say where the model is");
  const bool infers = !request.has_loss();
  const auto archive = Archive::Open(artifacts, ref->second, infers ? ModelMode::kEvaluation : ModelMode::kTraining);
  if (!archive.ok()) return AboutModel(archive.status());
  ExportedInspection inspection(request, DataOf(request), **archive, device, result);
  GPIPE_RETURN_IF_ERROR(AboutModel(inspection.Check()));
  if (infers) GPIPE_RETURN_IF_ERROR(AboutModel(CheckEvaluates(**archive)));
  if (!request.evaluate()) return AboutModel(inspection.Run(nullptr));

  const auto evaluated = Archive::Open(artifacts, ref->second, ModelMode::kEvaluation);
  if (!evaluated.ok()) return AboutEvaluation(evaluated.status());
  GPIPE_RETURN_IF_ERROR(AboutEvaluation(CheckEvaluates(**evaluated)));
  const bool same = !(*evaluated)->is_evaluation() && request.evaluation_inputs().empty();
  if (same) return AboutModel(inspection.Run(nullptr));
  v1::Inspected unused;
  ExportedInspection evaluation(request, EvaluationDataOf(request), **evaluated, device, unused);
  GPIPE_RETURN_IF_ERROR(AboutEvaluation(evaluation.Check()));
  GPIPE_RETURN_IF_ERROR(AboutEvaluation(CheckSameInputs((*archive)->program(), (*evaluated)->program())));
  return AboutModel(inspection.Run(&evaluation));
}

}  // namespace

v1::Inspected InspectExported(const v1::Inspect& request, Artifacts& artifacts, c10::Device device) {
  v1::Inspected result;
  result.set_id(request.id());
  const absl::Status status = CatchTorch([&] { return Inspect(request, artifacts, device, result); });
  if (!status.ok()) result.clear_layers();
  *result.mutable_status() = ToProto(status);
  return result;
}

}  // namespace gpipe::worker
