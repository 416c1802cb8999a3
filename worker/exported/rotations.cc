#include "worker/exported/rotations.h"

#include <algorithm>
#include <optional>
#include <string_view>
#include <utility>

#include "common/exported/value_names.h"
#include "worker/exported/operator_call.h"
#include "worker/model/rotation.h"

namespace gpipe::worker {
namespace {

using exported::Argument;
using exported::FindArgument;
using exported::Node;

constexpr std::string_view kAdd = "torch.ops.aten.add.Tensor";
constexpr std::string_view kMul = "torch.ops.aten.mul.Tensor";
constexpr std::string_view kCat = "torch.ops.aten.cat.default";
constexpr std::string_view kNeg = "torch.ops.aten.neg.default";
constexpr std::string_view kSlice = "torch.ops.aten.slice.Tensor";
constexpr std::string_view kChunk = "torch.ops.aten.chunk.default";
constexpr std::string_view kSplit = "torch.ops.aten.split.Tensor";
constexpr std::string_view kRotation = "rotary embedding";  // No operator's name.

const std::string* NameOf(const Argument* argument) {
  const auto* value = argument == nullptr ? nullptr : std::get_if<exported::ValueName>(&argument->value);
  return value == nullptr ? nullptr : &value->name;
}

// Nullopt for what is no constant; `otherwise` where it is left out or None.
std::optional<int64_t> IntegerOf(const Node& node, std::string_view name, int64_t otherwise) {
  const Argument* argument = FindArgument(node, name);
  if (argument == nullptr || std::holds_alternative<std::monostate>(argument->value)) return otherwise;
  const auto* number = std::get_if<int64_t>(&argument->value);
  return number == nullptr ? std::nullopt : std::optional(*number);
}

class Finder {
 public:
  Finder(const std::vector<const Node*>& nodes, const std::map<std::string, exported::TensorMeta>& values,
         const std::set<std::string>& kept)
      : nodes_(nodes), values_(values) {
    for (const std::string& name : kept) ++uses_[name];
    for (size_t i = 0; i < nodes.size(); ++i) {
      for (const std::string& name : exported::ValuesReadBy(*nodes[i])) ++uses_[name];
      for (const std::string& name : exported::ValuesMadeBy(*nodes[i])) makers_[name] = i;
    }
  }

  // The one that ends with this node.
  std::optional<Rotation> EndingWith(size_t last) const {
    const Node& add = *nodes_[last];
    const std::string *one = NameOf(FindArgument(add, "self")), *other = NameOf(FindArgument(add, "other"));
    const bool has_one_result = add.outputs.size() == 1 && add.outputs.front().names.size() == 1;
    if (add.target != kAdd || one == nullptr || other == nullptr || IntegerOf(add, "alpha", 1) != 1 ||
        !has_one_result || add.outputs.front().names.front().empty()) {
      return std::nullopt;
    }
    for (const auto& [straight, turned] : {std::pair(one, other), std::pair(other, one)}) {
      std::optional<Rotation> found = OfSum(*straight, *turned, last);
      if (found && !IsUsedElsewhere(*found) && !IsWrittenTo(*found)) return found;
    }
    return std::nullopt;
  }

 private:
  // What makes the value, if that is such an operator and nothing else uses the value.
  std::optional<size_t> MakerOf(const std::string& value, std::string_view target) const {
    const auto maker = makers_.find(value);
    if (maker == makers_.end() || nodes_[maker->second]->target != target || uses_.at(value) != 1) return std::nullopt;
    return maker->second;
  }

  // Of `x * cos` and `cat((-second, first), -1) * sin`.
  std::optional<Rotation> OfSum(const std::string& straight, const std::string& turned, size_t last) const {
    const std::optional<size_t> by_sin = MakerOf(turned, kMul), by_cos = MakerOf(straight, kMul);
    if (!by_sin || !by_cos) return std::nullopt;
    for (const auto& [value, angle] : FactorsOf(*by_sin)) {
      const std::optional<size_t> cat = MakerOf(*value, kCat);
      std::optional<Rotation> found = cat ? OfTurned(*cat) : std::nullopt;
      if (!found) continue;
      for (const auto& [x, cos] : FactorsOf(*by_cos)) {
        if (*x != found->x || *cos == found->x || !IsTensor(*cos) || !IsTensor(*angle)) continue;
        found->cos = *cos;
        found->sin = *angle;
        for (const size_t node : {*by_cos, *by_sin, last}) found->nodes.push_back(node);
        std::ranges::sort(found->nodes);
        return found;
      }
    }
    return std::nullopt;
  }

  // Else it may be a number that was computed.
  bool IsTensor(const std::string& value) const { return values_.contains(value); }

  // Both orders of a product of two values.
  std::vector<std::pair<const std::string*, const std::string*>> FactorsOf(size_t mul) const {
    const std::string *one = NameOf(FindArgument(*nodes_[mul], "self")),
                      *other = NameOf(FindArgument(*nodes_[mul], "other"));
    if (one == nullptr || other == nullptr) return {};
    return {{one, other}, {other, one}};
  }

  // Of `cat((-second, first), -1)`: x and the nodes so far.
  std::optional<Rotation> OfTurned(size_t cat) const {
    const Argument* tensors = FindArgument(*nodes_[cat], "tensors");
    const auto* list = tensors == nullptr ? nullptr : std::get_if<exported::ArgumentList>(&tensors->value);
    if (list == nullptr || list->size() != 2) return std::nullopt;
    const std::string *negative = NameOf(&list->front()), *first = NameOf(&list->back());
    if (negative == nullptr || first == nullptr) return std::nullopt;
    const std::optional<size_t> neg = MakerOf(*negative, kNeg);
    const std::string* second = neg ? NameOf(FindArgument(*nodes_[*neg], "self")) : nullptr;
    if (second == nullptr) return std::nullopt;
    const std::optional<Half> before = HalfOf(*first, 0), behind = HalfOf(*second, 1);
    if (!before || !behind || before->x != behind->x || !IsLast(*nodes_[cat], before->x)) return std::nullopt;
    Rotation found{.nodes = {before->node, *neg, cat}, .x = before->x, .cos = {}, .sin = {}};
    if (behind->node != before->node) found.nodes.push_back(behind->node);
    return found;
  }

  struct Half {
    std::string x;
    size_t node;  // That makes it.
  };

  // What `value` is the first half of, in the last dimension, or the second one (`index` 1).
  std::optional<Half> HalfOf(const std::string& value, size_t index) const {
    for (const std::string_view target : {kSlice, kChunk, kSplit}) {
      const std::optional<size_t> maker = MakerOf(value, target);
      if (!maker) continue;
      const Node& node = *nodes_[*maker];
      const std::string* x = NameOf(FindArgument(node, "self"));
      if (x == nullptr || !IsLast(node, *x)) return std::nullopt;
      const std::optional<int64_t> size = LastSizeOf(*x);
      if (!size || *size % 2 != 0) return std::nullopt;
      const bool is_half = target == kSlice ? IsSliceOf(node, *size, index) : IsPieceOf(node, value, *size, index);
      return is_half ? std::optional(Half{*x, *maker}) : std::nullopt;
    }
    return std::nullopt;
  }

  static bool IsSliceOf(const Node& slice, int64_t size, size_t index) {
    const std::optional<int64_t> start = IntegerOf(slice, "start", 0), end = IntegerOf(slice, "end", size);
    if (!start || !end || IntegerOf(slice, "step", 1) != 1) return false;
    return index == 0 ? *start == 0 && *end == size / 2 : *start == size / 2 && *end >= size;
  }

  static bool IsPieceOf(const Node& node, const std::string& value, int64_t size, size_t index) {
    const bool in_two =
        node.target == kChunk ? IntegerOf(node, "chunks", 0) == 2 : IntegerOf(node, "split_size", 0) == size / 2;
    const std::vector<std::string>& names = node.outputs.front().names;  // It makes the value.
    return in_two && names.size() == 2 && names[index] == value;
  }

  // Whether the node's `dim` is the last one of `x`.
  bool IsLast(const Node& node, const std::string& x) const {
    const auto meta = values_.find(x);
    if (meta == values_.end()) return false;
    const std::optional<int64_t> dim = IntegerOf(node, "dim", 0);
    return dim && (*dim == -1 || *dim == static_cast<int64_t>(meta->second.sizes.size()) - 1);
  }

  std::optional<int64_t> LastSizeOf(const std::string& x) const {
    const std::vector<exported::Size>& sizes = values_.at(x).sizes;
    const auto* size = sizes.empty() ? nullptr : std::get_if<int64_t>(&sizes.back());
    return size == nullptr ? std::nullopt : std::optional(*size);
  }

  // Its own values are the halves, the negative one, what is turned, and the two products, which it uses once each.
  bool IsUsedElsewhere(const Rotation& rotation) const {
    constexpr size_t kOwnUses = 6;
    size_t uses = 0;
    for (const size_t node : rotation.nodes) {
      if (node == rotation.nodes.back()) continue;
      for (const std::string& name : exported::ValuesMadeBy(*nodes_[node])) {
        if (const auto found = uses_.find(name); found != uses_.end()) uses += found->second;
      }
    }
    return uses != kOwnUses;
  }

  bool IsWrittenTo(const Rotation& rotation) const {
    for (size_t i = rotation.nodes.front(); i < rotation.nodes.back(); ++i) {
      if (MayWrite(*nodes_[i])) return true;
    }
    return false;
  }

  const std::vector<const Node*>& nodes_;
  const std::map<std::string, exported::TensorMeta>& values_;
  std::map<std::string, size_t> makers_, uses_;
};

class RotationCall : public Instruction {
 public:
  RotationCall(size_t x, size_t cos, size_t sin, ResultSlot result)
      : x_(x), cos_(cos), sin_(sin), result_(std::move(result)) {}

  void Run(const LayerContext&, Frame& frame) const override {
    result_.Store(Rotate(frame[x_].toTensor(), frame[cos_].toTensor(), frame[sin_].toTensor()), frame);
  }

 private:
  const size_t x_, cos_, sin_;
  const ResultSlot result_;
};

}  // namespace

std::vector<Rotation> FindRotations(const std::vector<const Node*>& nodes,
                                    const std::map<std::string, exported::TensorMeta>& values,
                                    const std::set<std::string>& kept) {
  const Finder finder(nodes, values, kept);
  std::vector<Rotation> rotations;
  for (size_t i = 0; i < nodes.size(); ++i) {
    if (std::optional<Rotation> found = finder.EndingWith(i)) rotations.push_back(*std::move(found));
  }
  return rotations;
}

Node AsNode(const Rotation& rotation, const Node& last) {
  Node node = last;
  node.target = kRotation;
  node.inputs.clear();
  for (const std::string& name : {rotation.x, rotation.cos, rotation.sin}) {
    node.inputs.push_back({"", {exported::ValueName{name}}});
  }
  return node;
}

std::unique_ptr<Instruction> MakeRotationCall(const Node& node, Slots& slots, const Layouts& layouts) {
  if (node.target != kRotation) return nullptr;
  const std::vector<std::string> read = exported::ValuesReadBy(node);
  return std::make_unique<RotationCall>(slots.Find(read[0]), slots.Find(read[1]), slots.Find(read[2]),
                                        *ResultSlot::Create(node.outputs.front().names.front(), slots, layouts));
}

}  // namespace gpipe::worker
