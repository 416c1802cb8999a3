// exported_check MODEL.pt2 NUMBERS.safetensors [whole]: trains the program some steps of SGD, whole and cut into 2, 3
// and 5 parts, with recomputing and without, and prints one line of JSON about how far it is from PyTorch's own numbers
// (tests/python/architectures.py): `S.input.*`, `S.output_gradient.*`, `S.output.*` and `S.gradient.*` of step S,
// `after.*` of parameters and buffers behind the last one, `evaluation.*` of the last step's inputs behind that, and
// `lr`. A difference is given as a part of what is allowed:
//   1e-5 of the tensor's largest element and 1e-6 of the largest of the step's gradients; for `after.*`, instead of the
//   latter, what SGD makes of it: lr times the sum over the steps.
// `whole` is for programs with random numbers, of which NUMBERS has only inputs and output gradients: what the whole
// program computes takes the place of PyTorch's numbers, and all others must be equal to it in every bit.

#include <ATen/ATen.h>

#include <algorithm>
#include <cmath>
#include <iostream>
#include <numeric>
#include <random>
#include <set>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "absl/strings/str_split.h"
#include "common/status_macros.h"
#include "nlohmann/json.hpp"
#include "tests/unit/worker/cut_program.h"
#include "worker/data/tensor_file.h"

namespace gpipe::worker {
namespace {

constexpr int kRandomChoices = 4;
constexpr double kOfTensor = 1e-5, kOfGradients = 1e-6;
constexpr double kInfinite = 1e300;  // JSON has no infinity.

double Largest(const at::Tensor& tensor) {
  if (!tensor.defined() || tensor.numel() == 0) return 0;
  return tensor.to(at::kDouble).abs().max().item<double>();
}

// A tensor that only one of the two has is zero in the other.
double Difference(const at::Tensor& found, const at::Tensor& expected) {
  if (!found.defined() || !expected.defined()) return std::max(Largest(found), Largest(expected));
  if (found.sizes() != expected.sizes() || found.dtype() != expected.dtype()) return kInfinite;
  return at::equal(found, expected) ? 0 : Largest(found.to(at::kDouble) - expected.to(at::kDouble));
}

// The file of what PyTorch computed.
class Numbers {
 public:
  explicit Numbers(const TensorFile& file) : file_(file), lr_(Get("lr").item<double>()) {
    for (const auto& [name, entry] : file.header().tensors) {
      const std::vector<std::string> words = absl::StrSplit(name, absl::MaxSplits('.', 2));
      if (words.size() < 3 || (words[1] != "input" && words[1] != "gradient")) continue;
      largest_.resize(std::max(largest_.size(), std::stoul(words[0]) + 1));
      double& largest = largest_[std::stoul(words[0])];
      if (words[1] == "gradient") largest = std::max(largest, Largest(Get(name)));
    }
  }

  bool Has(const std::string& name) const { return file_.header().tensors.contains(name); }
  // Undefined: it has none of that name. In aligned memory, as PyTorch's own are: kernels take it into account.
  at::Tensor Get(const std::string& name) const { return Has(name) ? file_.Get(name).value().clone() : at::Tensor(); }

  size_t steps() const { return largest_.size(); }
  double lr() const { return lr_; }
  double LargestGradient(size_t step) const { return largest_[step]; }
  double SumOfLargestUpdates() const { return lr_ * std::accumulate(largest_.begin(), largest_.end(), 0.0); }

 private:
  const TensorFile& file_;
  const double lr_;
  std::vector<double> largest_;  // Of all gradients, by step.
};

// The largest difference of a kind of tensors.
struct Worst {
  double ratio = 0;
  std::string where;
};

class Check {
 public:
  Check(const Archive& archive, const Numbers& numbers, const Units& units, bool against_whole)
      : archive_(archive), numbers_(numbers), units_(units), against_whole_(against_whole) {
    for (const exported::Input& input : archive.program().inputs) names_.insert(archive.CanonicalName(input.name));
  }

  absl::Status Run() {
    GPIPE_RETURN_IF_ERROR(RunBoth({}));
    for (const size_t parts : {2, 3, 5}) {
      if (units_.cuts().size() + 1 < parts) continue;
      for (const std::vector<size_t>& cuts : Choices(parts)) GPIPE_RETURN_IF_ERROR(RunBoth(cuts));
    }
    return absl::OkStatus();
  }

  // By kind: gradients, parameters, outputs.
  const std::map<std::string, Worst>& worst() const { return worst_; }

 private:
  // Evenly spread, and at random.
  std::vector<std::vector<size_t>> Choices(size_t parts) {
    const std::vector<size_t>& cuts = units_.cuts();
    std::vector<std::vector<size_t>> choices(1);
    for (size_t i = 1; i < parts; ++i) choices[0].push_back(cuts[i * (cuts.size() + 1) / parts - 1]);
    for (int i = 0; i < kRandomChoices; ++i) {
      std::sample(cuts.begin(), cuts.end(), std::back_inserter(choices.emplace_back()), parts - 1, random_);
    }
    return choices;
  }

  absl::Status RunBoth(const std::vector<size_t>& cuts) {
    GPIPE_RETURN_IF_ERROR(RunCut(cuts, /*recomputes=*/false));
    return RunCut(cuts, /*recomputes=*/true);
  }

  absl::Status RunCut(const std::vector<size_t>& cuts, bool recomputes) {
    where_ = absl::StrCat("cut at [", absl::StrJoin(cuts, ","), "]", recomputes ? ", recomputed: " : ": ");
    recording_ = against_whole_ && cuts.empty() && !recomputes;
    try {
      GPIPE_ASSIGN_OR_RETURN(const auto program, CutProgram::Create(archive_, units_, cuts));
      if (recomputes) program->RecomputeAlways();
      for (size_t step = 0; step < numbers_.steps(); ++step) Train(*program, step);
      CompareResult(*program);
      return absl::OkStatus();
    } catch (const std::exception& error) {
      const std::vector<std::string> lines = absl::StrSplit(error.what(), '\n');
      return absl::InternalError(where_ + lines.front());
    }
  }

  void Train(CutProgram& program, size_t step) {
    const std::string prefix = absl::StrCat(step, ".");
    const double largest = numbers_.LargestGradient(step);
    std::vector<at::Tensor> gradients;
    for (const auto& output : archive_.program().user_outputs) {
      gradients.push_back(numbers_.Get(absl::StrCat(prefix, "output_gradient.", output.name)));
    }
    const LayerContext context = {.training = true, .seed = 1, .step = static_cast<int64_t>(step)};
    CompareOutputs(prefix + "output.", program.Forward(Inputs(step), context), largest);
    program.Backward(gradients);
    for (const std::string& name : names_) {
      Compare("gradients", prefix + "gradient." + name, program.GradientOf(name), largest);
    }
    program.Update(numbers_.lr());
  }

  void CompareResult(CutProgram& program) {
    for (const std::string& name : names_) {
      for (const at::Tensor& copy : program.CopiesOf(name)) {
        if (!Has("after." + name)) continue;  // No part of the model's state_dict().
        Compare("parameters", "after." + name, copy, numbers_.SumOfLargestUpdates());
      }
    }
    const at::NoGradGuard no_gradients;
    const size_t last = numbers_.steps() - 1;
    CompareOutputs("evaluation.", program.Forward(Inputs(last), {}), numbers_.LargestGradient(last));
  }

  std::vector<at::Tensor> Inputs(size_t step) const {
    std::vector<at::Tensor> inputs;
    for (const auto& input : archive_.program().user_inputs) {
      inputs.push_back(numbers_.Get(absl::StrCat(step, ".input.", input.name)));
    }
    return inputs;
  }

  void CompareOutputs(const std::string& prefix, const std::vector<at::Tensor>& outputs, double largest_gradient) {
    for (size_t i = 0; i < outputs.size(); ++i) {
      const std::string name = prefix + archive_.program().user_outputs[i].name;
      if (prefix == "evaluation." && !Has(name)) continue;  // A model may return less than in training.
      Compare("outputs", name, outputs[i], largest_gradient);
    }
  }

  bool Has(const std::string& name) const { return against_whole_ || numbers_.Has(name); }

  void Compare(const std::string& kind, const std::string& name, const at::Tensor& found, double largest_gradient) {
    if (recording_) recorded_[name] = found.defined() ? found.detach().clone() : found;
    const at::Tensor expected = against_whole_ ? recorded_[name] : numbers_.Get(name);
    const double difference = Difference(found, expected);
    double ratio = difference / (kOfTensor * Largest(expected) + kOfGradients * largest_gradient);
    if (difference == 0) ratio = 0;
    if (!std::isfinite(ratio) || (against_whole_ && ratio > 0)) ratio = kInfinite;
    Worst& worst = worst_[kind];
    if (ratio > worst.ratio) worst = {ratio, where_ + name};
  }

  const Archive& archive_;
  const Numbers& numbers_;
  const Units& units_;
  const bool against_whole_;
  std::set<std::string> names_;  // Of parameters and buffers.
  std::mt19937 random_{1};
  std::string where_;       // The run in progress.
  bool recording_ = false;  // It is the whole program's, with which the others are compared.
  std::map<std::string, at::Tensor> recorded_;
  std::map<std::string, Worst> worst_;
};

absl::Status Run(const std::string& model, const std::string& numbers, bool against_whole, nlohmann::json& result) {
  GPIPE_ASSIGN_OR_RETURN(const std::unique_ptr<Archive> archive, Archive::Open(model));
  GPIPE_ASSIGN_OR_RETURN(const std::unique_ptr<TensorFile> file, TensorFile::Open(numbers));
  result["nodes"] = archive->program().graph.nodes.size();
  GPIPE_ASSIGN_OR_RETURN(const Units units, Units::Find(*archive));
  result["cuts"] = units.cuts().size();
  const Numbers expected(*file);
  Check check(*archive, expected, units, against_whole);
  const absl::Status status = check.Run();
  for (const auto& [kind, worst] : check.worst()) result[kind] = {{"worst", worst.ratio}, {"where", worst.where}};
  return status;
}

}  // namespace
}  // namespace gpipe::worker

int main(int argc, char** argv) {
  const bool against_whole = argc == 4 && argv[3] == std::string_view("whole");
  if (argc != 3 && !against_whole) {
    std::cerr << "exported_check MODEL.pt2 NUMBERS.safetensors [whole]\n";
    return 2;
  }
  nlohmann::json result;
  const absl::Status status = gpipe::worker::Run(argv[1], argv[2], against_whole, result);
  if (!status.ok()) result["error"] = status.message();
  std::cout << result.dump(-1, ' ', false, nlohmann::json::error_handler_t::replace) << "\n";
  return status.ok() ? 0 : 1;
}
