// exported_check MODEL.pt2 NUMBERS.safetensors: runs the program whole and cut into 2, 3 and 5 parts, with
// recomputing and without, and prints one line of JSON about how far it is from PyTorch's own numbers, which are named
// as in tests/golden/make_exported.py. `worst` is the largest |difference| as a part of what is allowed: 1e-5 of the
// tensor's largest element and 1e-6 of the largest of all gradients.

#include <ATen/ATen.h>

#include <algorithm>
#include <cmath>
#include <iostream>
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
constexpr double kInfinite = 1e300;  // JSON has no infinity.

double Largest(const at::Tensor& tensor) {
  if (!tensor.defined() || tensor.numel() == 0) return 0;
  return tensor.to(at::kDouble).abs().max().item<double>();
}

class Check {
 public:
  Check(const Archive& archive, const TensorFile& numbers, const Units& units)
      : archive_(archive), numbers_(numbers), units_(units) {
    for (const auto& [name, entry] : numbers_.header().tensors) {
      if (name.starts_with("gradient.")) largest_gradient_ = std::max(largest_gradient_, Largest(Number(name)));
    }
  }

  absl::Status Run() {
    GPIPE_RETURN_IF_ERROR(RunBoth({}));
    for (const size_t parts : {2, 3, 5}) {
      if (units_.cuts().size() + 1 < parts) continue;
      for (const std::vector<size_t>& cuts : Choices(parts)) GPIPE_RETURN_IF_ERROR(RunBoth(cuts));
    }
    return absl::OkStatus();
  }

  double worst() const { return worst_; }
  const std::string& worst_tensor() const { return worst_tensor_; }

 private:
  bool Has(const std::string& name) const { return numbers_.header().tensors.contains(name); }
  at::Tensor Number(const std::string& name) const { return Has(name) ? numbers_.Get(name).value() : at::Tensor(); }

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
    const std::string where =
        absl::StrCat("cut at [", absl::StrJoin(cuts, ","), "]", recomputes ? ", recomputed: " : ": ");
    try {
      GPIPE_ASSIGN_OR_RETURN(const auto program, CutProgram::Create(archive_, units_, cuts));
      if (recomputes) program->RecomputeAlways();
      Train(*program, where);
      return absl::OkStatus();
    } catch (const std::exception& error) {
      const std::vector<std::string> lines = absl::StrSplit(error.what(), '\n');
      return absl::InternalError(where + lines.front());
    }
  }

  void Train(CutProgram& program, const std::string& where) {
    std::vector<at::Tensor> inputs, gradients;
    for (const auto& input : archive_.program().user_inputs) inputs.push_back(Number("input." + input.name));
    for (const auto& output : archive_.program().user_outputs) {
      gradients.push_back(Number("output_gradient." + output.name));
    }
    CompareOutputs("output.", program.Forward(inputs), where);
    program.Backward(gradients);
    for (const std::string& name : ParametersAndBuffers()) {
      if (Has("after." + name)) Compare("after." + name, program.Find(name), where);
      Compare("gradient." + name, program.GradientOf(name), where);
    }
    const at::NoGradGuard no_gradients;
    CompareOutputs("evaluation.", program.Forward(inputs, /*training=*/false), where);
  }

  std::set<std::string> ParametersAndBuffers() const {
    std::set<std::string> names;
    for (const exported::Input& input : archive_.program().inputs) names.insert(archive_.CanonicalName(input.name));
    return names;
  }

  void CompareOutputs(const std::string& prefix, const std::vector<at::Tensor>& outputs, const std::string& where) {
    const auto& named = archive_.program().user_outputs;
    for (size_t i = 0; i < named.size(); ++i) {
      if (prefix == "output." || Has(prefix + named[i].name)) Compare(prefix + named[i].name, outputs[i], where);
    }
  }

  void Compare(const std::string& name, const at::Tensor& found, const std::string& where) {
    const double ratio = RatioOf(found, Number(name));
    if (worst_tensor_.empty() || ratio > worst_) {
      worst_ = ratio;
      worst_tensor_ = where + name;
    }
  }

  // A tensor that only one of the two has is zero in the other.
  double RatioOf(const at::Tensor& found, const at::Tensor& expected) const {
    const bool both = found.defined() && expected.defined();
    if (both && (found.sizes() != expected.sizes() || found.dtype() != expected.dtype())) return kInfinite;
    const double difference =
        both ? Largest(found.to(at::kDouble) - expected.to(at::kDouble)) : std::max(Largest(found), Largest(expected));
    if (difference == 0) return 0;
    const double ratio = difference / (1e-5 * Largest(expected) + 1e-6 * largest_gradient_);
    return std::isfinite(ratio) ? ratio : kInfinite;
  }

  const Archive& archive_;
  const TensorFile& numbers_;
  const Units& units_;
  std::mt19937 random_{1};
  double largest_gradient_ = 0;
  double worst_ = 0;
  std::string worst_tensor_;
};

absl::Status Run(const std::string& model, const std::string& numbers, nlohmann::json& result) {
  GPIPE_ASSIGN_OR_RETURN(const std::unique_ptr<Archive> archive, Archive::Open(model));
  GPIPE_ASSIGN_OR_RETURN(const std::unique_ptr<TensorFile> file, TensorFile::Open(numbers));
  result["nodes"] = archive->program().graph.nodes.size();
  GPIPE_ASSIGN_OR_RETURN(const Units units, Units::Find(*archive));
  result["cuts"] = units.cuts().size();
  Check check(*archive, *file, units);
  const absl::Status status = check.Run();
  result["worst"] = check.worst();
  result["worst_tensor"] = check.worst_tensor();
  return status;
}

}  // namespace
}  // namespace gpipe::worker

int main(int argc, char** argv) {
  if (argc != 3) {
    std::cerr << "exported_check MODEL.pt2 NUMBERS.safetensors\n";
    return 2;
  }
  nlohmann::json result;
  const absl::Status status = gpipe::worker::Run(argv[1], argv[2], result);
  if (!status.ok()) result["error"] = status.message();
  std::cout << result.dump(-1, ' ', false, nlohmann::json::error_handler_t::replace) << "\n";
  return status.ok() ? 0 : 1;
}
