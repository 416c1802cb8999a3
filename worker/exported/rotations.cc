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

// The tensors, and the nodes that use them.
struct Rotation {
  std::vector<size_t> nodes;
  std::string x, cos, sin;
};

class Finder {
 public:
  explicit Finder(const NodeUses& uses) : uses_(uses) {}

  // The one that ends with this node.
  std::optional<Rotation> EndingWith(size_t last) const {
    const Node& add = uses_.node(last);
    if (add.target != kAdd || OnlyResultOf(add) == nullptr || IntegerOf(add, "alpha", 1) != 1) return std::nullopt;
    for (const auto& [straight, turned] : uses_.OperandsOf(last)) {
      std::optional<Rotation> found = OfSum(*straight, *turned, last);
      if (found && !IsUsedElsewhere(*found) && !uses_.MayWriteBetween(found->nodes.front(), last)) return found;
    }
    return std::nullopt;
  }

 private:
  // Of `x * cos` and `cat((-second, first), -1) * sin`.
  std::optional<Rotation> OfSum(const std::string& straight, const std::string& turned, size_t last) const {
    const std::optional<size_t> by_sin = uses_.OnlyMakerOf(turned, kMul), by_cos = uses_.OnlyMakerOf(straight, kMul);
    if (!by_sin || !by_cos) return std::nullopt;
    for (const auto& [value, angle] : uses_.OperandsOf(*by_sin)) {
      const std::optional<size_t> cat = uses_.OnlyMakerOf(*value, kCat);
      std::optional<Rotation> found = cat ? OfTurned(*cat) : std::nullopt;
      if (!found) continue;
      for (const auto& [x, cos] : uses_.OperandsOf(*by_cos)) {
        if (*x != found->x || *cos == found->x || uses_.TensorOf(*cos) == nullptr || uses_.TensorOf(*angle) == nullptr)
          continue;
        found->cos = *cos;
        found->sin = *angle;
        for (const size_t node : {*by_cos, *by_sin, last}) found->nodes.push_back(node);
        std::ranges::sort(found->nodes);
        return found;
      }
    }
    return std::nullopt;
  }

  // Of `cat((-second, first), -1)`: x and the nodes so far.
  std::optional<Rotation> OfTurned(size_t cat) const {
    const Argument* tensors = FindArgument(uses_.node(cat), "tensors");
    const auto* list = tensors == nullptr ? nullptr : std::get_if<exported::ArgumentList>(&tensors->value);
    if (list == nullptr || list->size() != 2) return std::nullopt;
    const std::string *negative = ValueIn(&list->front()), *first = ValueIn(&list->back());
    if (negative == nullptr || first == nullptr) return std::nullopt;
    const std::optional<size_t> neg = uses_.OnlyMakerOf(*negative, kNeg);
    const std::string* second = neg ? ValueIn(FindArgument(uses_.node(*neg), "self")) : nullptr;
    if (second == nullptr) return std::nullopt;
    const std::optional<Half> before = HalfOf(*first, 0), behind = HalfOf(*second, 1);
    if (!before || !behind || before->x != behind->x || !IsLast(uses_.node(cat), before->x)) return std::nullopt;
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
      const std::optional<size_t> maker = uses_.OnlyMakerOf(value, target);
      if (!maker) continue;
      const Node& node = uses_.node(*maker);
      const std::string* x = ValueIn(FindArgument(node, "self"));
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
    const exported::TensorMeta* meta = uses_.TensorOf(x);
    if (meta == nullptr) return false;
    const std::optional<int64_t> dim = IntegerOf(node, "dim", 0);
    return dim && (*dim == -1 || *dim == static_cast<int64_t>(meta->sizes.size()) - 1);
  }

  // REQUIRES: IsLast of it.
  std::optional<int64_t> LastSizeOf(const std::string& x) const {
    const std::vector<exported::Size>& sizes = uses_.TensorOf(x)->sizes;
    const auto* size = sizes.empty() ? nullptr : std::get_if<int64_t>(&sizes.back());
    return size == nullptr ? std::nullopt : std::optional(*size);
  }

  // Its own values are the halves, the negative one, what is turned, and the two products, which it uses once each.
  bool IsUsedElsewhere(const Rotation& rotation) const {
    constexpr size_t kOwnUses = 6;
    size_t uses = 0;
    for (const size_t node : rotation.nodes) {
      if (node != rotation.nodes.back()) uses += uses_.UsesOf(node);
    }
    return uses != kOwnUses;
  }

  const NodeUses& uses_;
};

}  // namespace

std::optional<Fusion> RotationEndingWith(size_t last, const NodeUses& uses) {
  std::optional<Rotation> found = Finder(uses).EndingWith(last);
  if (!found) return std::nullopt;
  return Fusion{std::move(found->nodes), kRotation, {found->x, found->cos, found->sin}};
}

bool IsRotation(std::string_view kind) { return kind == kRotation; }

at::Tensor ComputeRotation(std::string_view /*kind*/, const std::vector<at::Tensor>& values) {
  return Rotate(values[0], values[1], values[2]);
}

}  // namespace gpipe::worker
