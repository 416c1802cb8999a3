#include "worker/exported/region_call.h"

#include <ATen/ATen.h>
#include <ATen/autocast_mode.h>

#include <optional>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "common/status_macros.h"
#include "worker/exported/argument_source.h"
#include "worker/exported/graph_code.h"

namespace gpipe::worker {
namespace {

using exported::Argument;
using exported::Node;

absl::Status Malformed() { return absl::InvalidArgumentError("the region has other arguments than expected"); }

template <typename T>
const T* Get(const Node& node, size_t position) {
  return position < node.inputs.size() ? std::get_if<T>(&node.inputs[position].argument.value) : nullptr;
}

// A graph with the values of the frame that it is called with, and where its results go.
class Region {
 public:
  static absl::StatusOr<Region> Create(const Node& node, size_t graph, const std::vector<Argument>& operands,
                                       uint64_t position, Slots& slots, const CompileOptions& options) {
    const auto* code = Get<std::shared_ptr<const exported::Graph>>(node, graph);
    if (code == nullptr) return Malformed();
    GPIPE_ASSIGN_OR_RETURN(GraphCode compiled, GraphCode::CompileRegion(**code, position, options));
    Region region(std::move(compiled));
    for (const Argument& operand : operands) {
      GPIPE_ASSIGN_OR_RETURN(ArgumentSource source,
                             ArgumentSource::Create(operand, c10::AnyType::get(), slots, options.device));
      region.operands_.push_back(std::move(source));
    }
    return region;
  }

  void Run(const LayerContext& context, const std::vector<std::optional<ResultSlot>>& results, Frame& frame) const {
    std::vector<c10::IValue> values;
    for (const ArgumentSource& operand : operands_) values.push_back(operand.Get(frame));
    std::vector<c10::IValue> made = code_.Run(context, std::move(values));
    TORCH_CHECK_VALUE(made.size() >= results.size(), "the region makes ", made.size(), " values instead of ",
                      results.size());
    for (size_t i = 0; i < results.size(); ++i) {
      if (results[i]) results[i]->Store(std::move(made[i]), frame);
    }
  }

 private:
  explicit Region(GraphCode code) : code_(std::move(code)) {}

  GraphCode code_;
  std::vector<ArgumentSource> operands_;
};

using Results = std::vector<std::optional<ResultSlot>>;

Results AddResults(const Node& node, Slots& slots, const Layouts& layouts) {
  Results results;
  for (const exported::Output& output : node.outputs) {
    for (const std::string& name : output.names) {
      results.push_back(ResultSlot::Create(name, slots, layouts));
    }
    if (output.names.empty()) results.push_back(std::nullopt);
  }
  return results;
}

std::vector<Argument> ArgumentsFrom(const Node& node, size_t first) {
  std::vector<Argument> arguments;
  for (size_t i = first; i < node.inputs.size(); ++i) arguments.push_back(node.inputs[i].argument);
  return arguments;
}

// (enabled, graph, operands...)
class GradModeRegion : public Instruction {
 public:
  GradModeRegion(bool enabled, Region region, Results results)
      : enabled_(enabled), region_(std::move(region)), results_(std::move(results)) {}

  void Run(const LayerContext& context, Frame& frame) const override {
    // Without gradients around it, as in a forward that will be recomputed, there are none inside either.
    const c10::AutoGradMode mode(enabled_ && c10::GradMode::is_enabled());
    region_.Run(context, results_, frame);
  }

 private:
  const bool enabled_;
  const Region region_;
  const Results results_;
};

absl::StatusOr<std::unique_ptr<Instruction>> MakeGradMode(const Node& node, uint64_t position, Slots& slots,
                                                          const Layouts& layouts, const CompileOptions& options) {
  const bool* enabled = Get<bool>(node, 0);
  if (enabled == nullptr) return Malformed();
  GPIPE_ASSIGN_OR_RETURN(Region region, Region::Create(node, 1, ArgumentsFrom(node, 2), position, slots, options));
  return std::make_unique<GradModeRegion>(*enabled, std::move(region), AddResults(node, slots, layouts));
}

// Autocast as torch.autocast enters and leaves it.
class AutocastScope {
 public:
  AutocastScope(c10::DeviceType device, bool enabled, std::optional<c10::ScalarType> dtype, bool cache)
      : device_(device),
        was_enabled_(at::autocast::is_autocast_enabled(device)),
        was_dtype_(at::autocast::get_autocast_dtype(device)),
        was_cache_(at::autocast::is_autocast_cache_enabled()) {
    at::autocast::set_autocast_enabled(device, enabled);
    if (dtype) at::autocast::set_autocast_dtype(device, *dtype);
    at::autocast::set_autocast_cache_enabled(cache);
    at::autocast::increment_nesting();
  }
  ~AutocastScope() {
    if (at::autocast::decrement_nesting() == 0) at::autocast::clear_cache();
    at::autocast::set_autocast_enabled(device_, was_enabled_);
    at::autocast::set_autocast_dtype(device_, was_dtype_);
    at::autocast::set_autocast_cache_enabled(was_cache_);
  }
  AutocastScope(const AutocastScope&) = delete;
  AutocastScope& operator=(const AutocastScope&) = delete;

 private:
  const c10::DeviceType device_;
  const bool was_enabled_;
  const c10::ScalarType was_dtype_;
  const bool was_cache_;
};

// (device type, dtype or None, enabled, cache enabled or None, graph, operands...)
class AutocastRegion : public Instruction {
 public:
  AutocastRegion(c10::DeviceType device, bool enabled, std::optional<c10::ScalarType> dtype, bool cache, Region region,
                 Results results)
      : device_(device),
        enabled_(enabled),
        dtype_(dtype),
        cache_(cache),
        region_(std::move(region)),
        results_(std::move(results)) {}

  void Run(const LayerContext& context, Frame& frame) const override {
    const AutocastScope scope(device_, enabled_, dtype_, cache_);
    region_.Run(context, results_, frame);
  }

 private:
  const c10::DeviceType device_;
  const bool enabled_;
  const std::optional<c10::ScalarType> dtype_;
  const bool cache_;
  const Region region_;
  const Results results_;
};

absl::StatusOr<std::unique_ptr<Instruction>> MakeAutocast(const Node& node, uint64_t position, Slots& slots,
                                                          const Layouts& layouts, const CompileOptions& options) {
  const auto* device = Get<std::string>(node, 0);
  const bool* enabled = Get<bool>(node, 2);
  if (device == nullptr || enabled == nullptr) return Malformed();
  std::optional<c10::ScalarType> dtype;
  if (const auto* code = Get<exported::DtypeCode>(node, 1)) dtype = ToScalarType(*code);
  const bool* cache = Get<bool>(node, 3);
  GPIPE_ASSIGN_OR_RETURN(Region region, Region::Create(node, 4, ArgumentsFrom(node, 5), position, slots, options));
  const c10::DeviceType type = *device == "cpu" ? c10::kCPU : c10::kCUDA;
  return std::make_unique<AutocastRegion>(type, *enabled, dtype, cache == nullptr || *cache, std::move(region),
                                          AddResults(node, slots, layouts));
}

// (predicate, true graph, false graph, list of operands)
class Condition : public Instruction {
 public:
  Condition(ArgumentSource predicate, Region yes, Region no, Results results)
      : predicate_(std::move(predicate)), yes_(std::move(yes)), no_(std::move(no)), results_(std::move(results)) {}

  void Run(const LayerContext& context, Frame& frame) const override {
    const c10::IValue value = predicate_.Get(frame);
    const bool chosen = value.isTensor() ? value.toTensor().item<bool>() : value.toBool();
    (chosen ? yes_ : no_).Run(context, results_, frame);
  }

 private:
  const ArgumentSource predicate_;
  const Region yes_, no_;
  const Results results_;
};

absl::StatusOr<std::unique_ptr<Instruction>> MakeCondition(const Node& node, uint64_t position, Slots& slots,
                                                           const Layouts& layouts, const CompileOptions& options) {
  const auto* operands = Get<exported::ArgumentList>(node, 3);
  if (operands == nullptr) return Malformed();
  GPIPE_ASSIGN_OR_RETURN(ArgumentSource predicate,
                         ArgumentSource::Create(node.inputs[0].argument, c10::AnyType::get(), slots, options.device));
  GPIPE_ASSIGN_OR_RETURN(Region yes, Region::Create(node, 1, *operands, position, slots, options));
  // Behind the other's: micro-batches may choose differently, and what they keep by place are things of two graphs.
  const uint64_t behind = position + CountPlaces(**Get<std::shared_ptr<const exported::Graph>>(node, 1));
  GPIPE_ASSIGN_OR_RETURN(Region no, Region::Create(node, 2, *operands, behind, slots, options));
  return std::make_unique<Condition>(std::move(predicate), std::move(yes), std::move(no),
                                     AddResults(node, slots, layouts));
}

}  // namespace

absl::StatusOr<std::unique_ptr<Instruction>> MakeRegionCall(const Node& node, uint64_t position, Slots& slots,
                                                            const Layouts& layouts, const CompileOptions& options) {
  constexpr std::string_view kPrefix = "torch.ops.higher_order.";
  if (!node.target.starts_with(kPrefix)) return nullptr;
  const std::string_view name = std::string_view(node.target).substr(kPrefix.size());
  if (name == "wrap_with_set_grad_enabled") return MakeGradMode(node, position, slots, layouts, options);
  if (name == "wrap_with_autocast") return MakeAutocast(node, position, slots, layouts, options);
  if (name == "cond") return MakeCondition(node, position, slots, layouts, options);
  return absl::UnimplementedError(absl::StrCat(node.target, " is not supported"));
}

}  // namespace gpipe::worker
