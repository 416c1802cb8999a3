#include "common/spec/validator.h"

#include <algorithm>
#include <limits>

#include "absl/strings/ascii.h"
#include "absl/strings/str_cat.h"
#include "common/data/pattern.h"
#include "common/spec/checks.h"

namespace gpipe::spec {
namespace {

constexpr size_t kMaxNameLength = 63;

void CheckName(const std::string& name, FieldErrors& errors) {
  if (name.empty()) return errors.Add("name", "is required");
  const auto allowed = [](char c) { return absl::ascii_isalnum(c) || c == '-' || c == '_' || c == '.'; };
  const bool good = name.size() <= kMaxNameLength && absl::ascii_isalnum(name.front()) &&
                    std::all_of(name.begin(), name.end(), allowed);
  if (!good) {
    errors.Add("name", "must be at most 63 letters, digits, '-', '_' and '.', and begin with a letter or digit");
  }
}

void CheckRestarts(int restarts, FieldErrors& errors) {
  if (restarts >= 0 && restarts <= kMostRestarts) return;
  errors.Add("max_restarts", absl::StrCat("must be between 0 and ", kMostRestarts, ", and is ", restarts));
}

void CheckTask(const v1::JobSpec& spec, FieldErrors& errors) {
  switch (spec.task_case()) {
    case v1::JobSpec::kTrain:
      return CheckTrain(spec, errors);
    case v1::JobSpec::kInfer:
      return CheckInfer(spec, errors);
    case v1::JobSpec::TASK_NOT_SET:
      errors.Add("", "there is no task: give train or infer");
  }
}

void CheckBalance(const v1::JobSpec& spec, FieldErrors& errors) {
  const auto& balance = spec.pipeline().balance();
  if (balance.empty()) return;
  const int layers = spec.model().sequential_size();
  bool good = true;
  int64_t sum = 0;
  for (int i = 0; i < balance.size(); ++i) {
    if (!CheckPositive(balance[i], ElementPath("pipeline.balance", i), errors)) {
      good = false;
    } else if (__builtin_add_overflow(sum, balance[i], &sum)) {
      sum = std::numeric_limits<int64_t>::max();  // More than any number of layers, which is all that matters below.
    }
  }
  if (spec.model().has_exported()) return;  // How many parts it has is known when it has been looked at.
  if (balance.size() > layers) {
    errors.Add("pipeline.balance", absl::StrCat("has more stages than the model has layers (stages: ", balance.size(),
                                                ", layers: ", layers, ")"));
  } else if (good && sum != layers) {
    errors.Add("pipeline.balance",
               absl::StrCat("must add up to the number of layers (sum of balance: ", sum, ", layers: ", layers,
                            "); leave balance out for a cut by measured cost"));
  }
}

void CheckSplit(const v1::JobSpec& spec, FieldErrors& errors) {
  const auto& split = spec.pipeline().split();
  if (split.empty()) return;
  if (!spec.pipeline().balance().empty()) errors.Add("pipeline.split", "and balance exclude each other: give one");
  if (!spec.model().has_exported()) errors.Add("pipeline.split", "is for an exported model; cut layers by balance");
  for (int i = 0; i < split.size(); ++i) {
    if (split[i].empty()) errors.Add(ElementPath("pipeline.split", i), "must name a module, and is empty");
  }
}

// 0: not known yet.
int64_t MostStages(const v1::JobSpec& spec) {
  const v1::Pipeline& pipeline = spec.pipeline();
  if (!pipeline.split().empty()) return pipeline.split_size() + 1;
  return pipeline.balance().empty() ? spec.model().sequential_size() : pipeline.balance_size();
}

}  // namespace

void CheckModel(const v1::Model& model, FieldErrors& errors) {
  if (model.has_exported()) {
    if (model.exported().path().empty()) errors.Add("model.exported.path", "is required");
    if (!model.sequential().empty()) errors.Add("model", "needs either sequential or exported");
    return;
  }
  if (model.sequential().empty()) errors.Add("model.sequential", "is required: at least one layer");
  for (int i = 0; i < model.sequential_size(); ++i) {
    const std::string kind = LayerKind(model.sequential(i));
    const std::string path = absl::StrCat("model.sequential[", i, "]", kind.empty() ? "" : ".", kind);
    CheckLayer(model.sequential(i), path, errors);
  }
  CheckSkips(model, errors);
}

void CheckPipeline(const v1::JobSpec& spec, FieldErrors& errors) {
  const v1::Pipeline& pipeline = spec.pipeline();
  CheckBalance(spec, errors);
  CheckSplit(spec, errors);
  CheckNotNegative(pipeline.clock_window(), "pipeline.clock_window", errors);
  if (pipeline.has_chunks()) CheckPositive(pipeline.chunks(), "pipeline.chunks", errors);
  if (!CheckNotNegative(pipeline.workers(), "pipeline.workers", errors)) return;
  const int64_t stages = MostStages(spec);
  const bool fixed = !pipeline.balance().empty() || !pipeline.split().empty();
  if ((fixed || !spec.model().has_exported()) && pipeline.workers() > stages) {
    errors.Add("pipeline.workers",
               absl::StrCat("must be at most the number of ", fixed ? "stages" : "layers", ", ", stages));
  }
  if (!v1::Checkpoint_IsValid(pipeline.checkpoint())) errors.Add("pipeline.checkpoint", "is not a known value");
  if (!v1::ScheduleKind_IsValid(pipeline.schedule())) errors.Add("pipeline.schedule", "is not a known value");
  if (!v1::Device_IsValid(pipeline.device())) errors.Add("pipeline.device", "is not a known value");
  if (!v1::Capture_IsValid(pipeline.capture())) errors.Add("pipeline.capture", "is not a known value");
}

absl::Status Validate(const v1::JobSpec& spec) {
  FieldErrors errors;
  CheckName(spec.name(), errors);
  CheckModel(spec.model(), errors);
  CheckPipeline(spec, errors);
  CheckTask(spec, errors);
  CheckRestarts(spec.max_restarts(), errors);
  return errors.ToStatus();
}

std::vector<NamedFile> FilesOf(const v1::JobSpec& spec) {
  std::vector<NamedFile> files;
  const auto add = [&](const std::string& field, const std::string& path) {
    if (!path.empty() && !data::IsShared(path)) files.push_back({field, path});
  };
  add("model.exported.path", spec.model().exported().path());
  add("model.weights", spec.model().weights());
  v1::JobSpec copy = spec;
  for (const FileList& list : DataFilesOf(copy)) {
    for (int i = 0; i < list.paths->size(); ++i) {
      // A single one may have been written as no list.
      add(list.paths->size() == 1 ? list.field : ElementPath(list.field, i), list.paths->Get(i));
    }
  }
  return files;
}

std::vector<FileList> DataFilesOf(v1::JobSpec& spec) {
  std::vector<FileList> lists;
  const auto add = [&](const std::string& field, v1::Dataset& dataset) {
    if (!dataset.path().empty()) lists.push_back({field + ".path", dataset.mutable_path()});
    if (!dataset.has_tokens()) return;
    lists.push_back({field + ".tokens.path", dataset.mutable_tokens()->mutable_path(), &dataset.tokens()});
  };
  if (spec.has_train()) {
    v1::Train& train = *spec.mutable_train();
    if (train.has_dataset()) add("train.dataset", *train.mutable_dataset());
    if (train.has_evaluate()) add("train.evaluate.dataset", *train.mutable_evaluate()->mutable_dataset());
  }
  if (spec.has_infer() && !spec.infer().inputs().empty()) {
    lists.push_back({"infer.inputs", spec.mutable_infer()->mutable_inputs()});
  }
  return lists;
}

std::string LayerKind(const v1::Layer& layer) {
  const auto* oneof = v1::Layer::descriptor()->FindOneofByName("kind");
  const auto* field = layer.GetReflection()->GetOneofFieldDescriptor(layer, oneof);
  return field == nullptr ? "" : field->name();
}

std::string LayerPath(const v1::JobSpec& spec, int index) {
  return absl::StrCat("model.sequential[", index, "].", LayerKind(spec.model().sequential(index)));
}

}  // namespace gpipe::spec
