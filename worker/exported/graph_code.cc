#include "worker/exported/graph_code.h"

#include <deque>
#include <map>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "common/exported/value_names.h"
#include "common/status_macros.h"
#include "worker/exported/fusions.h"
#include "worker/exported/region_call.h"
#include "worker/exported/result_layout.h"
#include "worker/exported/shared_inputs.h"
#include "worker/exported/size_arithmetic.h"

namespace gpipe::worker {
namespace {

using exported::Argument;
using exported::Node;

// torch.export leaves them behind; they check the types and devices of the machine that exported.
constexpr std::string_view kMetadataCheck = "torch.ops.aten._assert_tensor_metadata.default";

std::string Describe(const Node& node) {
  return absl::StrCat(node.name, " (", node.target, ")", node.source.empty() ? "" : absl::StrCat(" at ", node.source));
}

absl::StatusOr<std::unique_ptr<Instruction>> MakeInstruction(uint64_t position, const Node& node, Slots& slots,
                                                             const Layouts& layouts, const CompileOptions& options) {
  if (std::unique_ptr<Instruction> fused = MakeFusedCall(node, slots, layouts)) return fused;
  if (std::unique_ptr<Instruction> shared = MakeSharedInput(node, slots)) return shared;
  GPIPE_ASSIGN_OR_RETURN(std::unique_ptr<Instruction> made, MakeRegionCall(node, position, slots, layouts, options));
  if (made == nullptr) {
    GPIPE_ASSIGN_OR_RETURN(made, MakeSizeArithmetic(node, slots));
  }
  if (made != nullptr) return made;
  return MakeOperatorCall(node, position, slots, layouts, options);
}

// Its own, and those of the nodes in its regions, at any depth.
uint64_t CountPlacesOf(const Node& node) {
  uint64_t places = 1;
  for (const exported::NamedArgument& input : node.inputs) {
    const auto* region = std::get_if<std::shared_ptr<const exported::Graph>>(&input.argument.value);
    if (region != nullptr) places += CountPlaces(**region);
  }
  return places;
}

// The part with one node, which `made` keeps, in the place of the last one of each fusion.
GraphCode::Part WithFusions(const GraphCode::Part& part, std::deque<Node>& made) {
  std::vector<const Node*> nodes;
  for (const auto& [position, node] : part.nodes) nodes.push_back(node);
  std::vector<std::string> kept;
  for (const Argument& argument : part.leaving) exported::AppendValues(argument, kept);
  for (const Fusion& fusion : FindFusions(nodes, part.values, {kept.begin(), kept.end()})) {
    const Node& last = *nodes[fusion.nodes.back()];
    for (const size_t node : fusion.nodes) nodes[node] = nullptr;
    nodes[fusion.nodes.back()] = &made.emplace_back(AsNode(fusion, last));
  }
  GraphCode::Part result{{}, part.entering, part.leaving, part.values};
  for (size_t i = 0; i < nodes.size(); ++i) {
    if (nodes[i] != nullptr) result.nodes.emplace_back(part.nodes[i].first, nodes[i]);
  }
  return result;
}

}  // namespace

uint64_t CountPlaces(const exported::Graph& graph) {
  uint64_t places = 0;
  for (const Node& node : graph.nodes) places += CountPlacesOf(node);
  return places;
}

std::vector<uint64_t> PlacesOf(const exported::Graph& graph, uint64_t first) {
  std::vector<uint64_t> places;
  for (const Node& node : graph.nodes) {
    places.push_back(first);
    first += CountPlacesOf(node);
  }
  return places;
}

absl::StatusOr<GraphCode> GraphCode::Compile(const Part& as_exported, const CompileOptions& options) {
  std::deque<Node> made;
  const Part sharing{WithSharedInputs(as_exported.nodes, made), as_exported.entering, as_exported.leaving,
                     as_exported.values};
  const Part part = WithFusions(sharing, made);
  GraphCode code;
  Slots slots;
  for (const std::string& name : part.entering) code.entering_.push_back(slots.Add(name));
  const Layouts layouts = ResultLayouts(part.nodes, part.values, options.symbols);
  std::vector<std::string> problems;
  for (const auto& [position, node] : part.nodes) {
    const absl::Status status = code.Add(position, *node, slots, layouts, options);
    if (!status.ok()) problems.push_back(absl::StrCat(Describe(*node), ": ", status.message()));
    // So that what uses its results is not a problem as well.
    for (const std::string& name : exported::ValuesMadeBy(*node)) slots.Add(name);
  }
  if (!problems.empty()) return absl::InvalidArgumentError(absl::StrJoin(problems, "\n"));
  GPIPE_RETURN_IF_ERROR(code.Leave(part.leaving, slots));
  code.slots_ = slots.size();
  code.FindLastUses(part, slots);
  return code;
}

absl::StatusOr<GraphCode> GraphCode::CompileRegion(const exported::Graph& graph, uint64_t place,
                                                   const CompileOptions& options) {
  Part part{{}, graph.inputs, graph.outputs, graph.values};
  const std::vector<uint64_t> places = PlacesOf(graph, place + 1);
  for (size_t i = 0; i < graph.nodes.size(); ++i) part.nodes.emplace_back(places[i], &graph.nodes[i]);
  return Compile(part, options);
}

absl::Status GraphCode::Add(uint64_t position, const Node& node, Slots& slots, const Layouts& layouts,
                            const CompileOptions& options) {
  Step& step = steps_.emplace_back();
  step.where = Describe(node);
  if (node.target == kMetadataCheck) return absl::OkStatus();
  GPIPE_ASSIGN_OR_RETURN(step.instruction, MakeInstruction(position, node, slots, layouts, options));
  return absl::OkStatus();
}

absl::Status GraphCode::Leave(const exported::ArgumentList& leaving, const Slots& slots) {
  for (const Argument& argument : leaving) {
    GPIPE_ASSIGN_OR_RETURN(ArgumentSource source,
                           ArgumentSource::Create(argument, c10::AnyType::get(), slots, c10::kCPU));
    leaving_.push_back(std::move(source));
  }
  return absl::OkStatus();
}

void GraphCode::FindLastUses(const Part& part, const Slots& slots) {
  std::map<std::string, size_t> last;
  for (size_t i = 0; i < part.nodes.size(); ++i) {
    for (const std::string& name : exported::ValuesReadBy(*part.nodes[i].second)) last[name] = i;
    for (const std::string& name : exported::ValuesMadeBy(*part.nodes[i].second)) last[name] = i;
  }
  std::vector<std::string> kept;
  for (const Argument& argument : part.leaving) exported::AppendValues(argument, kept);
  for (const std::string& name : kept) last.erase(name);
  for (const auto& [name, step] : last) {
    if (slots.Has(name)) steps_[step].dead.push_back(slots.Find(name));
  }
}

std::vector<c10::IValue> GraphCode::Run(const LayerContext& context, std::vector<c10::IValue> values) const {
  Frame frame(slots_);
  for (size_t i = 0; i < entering_.size(); ++i) frame[entering_[i]] = std::move(values[i]);
  for (const Step& step : steps_) {
    try {
      if (step.instruction != nullptr) step.instruction->Run(context, frame);
    } catch (c10::Error& error) {
      error.add_context(absl::StrCat("in ", step.where));
      throw;
    }
    for (const size_t slot : step.dead) frame[slot] = {};
  }
  std::vector<c10::IValue> results;
  for (const ArgumentSource& source : leaving_) results.push_back(source.Get(frame));
  return results;
}

}  // namespace gpipe::worker
