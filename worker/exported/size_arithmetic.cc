#include "worker/exported/size_arithmetic.h"

#include <ATen/core/jit_type.h>

#include <algorithm>
#include <cmath>
#include <string_view>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "common/status_macros.h"
#include "worker/exported/argument_source.h"

namespace gpipe::worker {
namespace {

using c10::IValue;
using Operands = std::vector<IValue>;
using Function = IValue (*)(const Operands&);

bool AllInt(const Operands& operands) {
  return std::all_of(operands.begin(), operands.end(), [](const IValue& v) { return v.isInt() || v.isBool(); });
}
int64_t Int(const IValue& value) { return value.isBool() ? static_cast<int64_t>(value.toBool()) : value.toInt(); }
double Number(const IValue& value) { return value.isDouble() ? value.toDouble() : static_cast<double>(Int(value)); }

// A function for integers, and one for when any operand is a float.
template <typename Ints, typename Floats>
IValue Either(const Operands& operands, Ints ints, Floats floats) {
  TORCH_CHECK_VALUE(operands.size() == 2, "takes 2 numbers");
  if (AllInt(operands)) return ints(Int(operands[0]), Int(operands[1]));
  return floats(Number(operands[0]), Number(operands[1]));
}
template <typename Both>
IValue Either(const Operands& operands, Both both) {
  return Either(operands, both, both);
}

// Sizes are small; what does not fit is a mistake of the model's, not Python's long integer.
int64_t Add(int64_t a, int64_t b) {
  int64_t sum = 0;
  TORCH_CHECK_VALUE(!__builtin_add_overflow(a, b, &sum), a, " + ", b, " is too large");
  return sum;
}
double Add(double a, double b) { return a + b; }
int64_t Subtract(int64_t a, int64_t b) {
  int64_t difference = 0;
  TORCH_CHECK_VALUE(!__builtin_sub_overflow(a, b, &difference), a, " - ", b, " is too large");
  return difference;
}
double Subtract(double a, double b) { return a - b; }
int64_t Multiply(int64_t a, int64_t b) {
  int64_t product = 0;
  TORCH_CHECK_VALUE(!__builtin_mul_overflow(a, b, &product), a, " * ", b, " is too large");
  return product;
}
double Multiply(double a, double b) { return a * b; }

int64_t FloorDivide(int64_t a, int64_t b) {
  TORCH_CHECK_VALUE(b != 0, "division by zero");
  if (b == -1) return Subtract(0, a);  // The processor traps where this does not fit.
  const int64_t quotient = a / b;
  return quotient - static_cast<int64_t>(a % b != 0 && (a < 0) != (b < 0));
}
double FloorDivide(double a, double b) { return std::floor(a / b); }
int64_t Modulo(int64_t a, int64_t b) { return b == -1 ? 0 : a - b * FloorDivide(a, b); }
double Modulo(double a, double b) { return a - b * std::floor(a / b); }

IValue Power(const Operands& operands) {
  const auto ints = [](int64_t base, int64_t exponent) -> IValue {
    if (exponent < 0) return std::pow(static_cast<double>(base), static_cast<double>(exponent));
    int64_t power = 1;
    for (; exponent > 0; exponent /= 2) {
      if (exponent % 2 == 1) power = Multiply(power, base);
      if (exponent > 1) base = Multiply(base, base);
    }
    return power;
  };
  return Either(operands, ints, [](double a, double b) -> IValue { return std::pow(a, b); });
}

template <double (*kFunction)(double)>
IValue ToInt(const Operands& operands) {
  const double whole = kFunction(Number(operands.at(0)));
  constexpr double kLimit = 9223372036854775808.0;  // 2^63
  TORCH_CHECK_VALUE(whole >= -kLimit && whole < kLimit, whole, " is no integer of 64 bits");
  return static_cast<int64_t>(whole);
}

constexpr std::pair<std::string_view, Function> kFunctions[] = {
    {"_operator.add", [](const Operands& o) { return Either(o, [](auto a, auto b) -> IValue { return Add(a, b); }); }},
    {"_operator.sub",
     [](const Operands& o) { return Either(o, [](auto a, auto b) -> IValue { return Subtract(a, b); }); }},
    {"_operator.mul",
     [](const Operands& o) { return Either(o, [](auto a, auto b) -> IValue { return Multiply(a, b); }); }},
    {"_operator.truediv", [](const Operands& o) -> IValue { return Number(o.at(0)) / Number(o.at(1)); }},
    {"_operator.floordiv",
     [](const Operands& o) { return Either(o, [](auto a, auto b) -> IValue { return FloorDivide(a, b); }); }},
    {"_operator.mod",
     [](const Operands& o) { return Either(o, [](auto a, auto b) -> IValue { return Modulo(a, b); }); }},
    {"_operator.pow", Power},
    {"_operator.neg",
     [](const Operands& o) -> IValue {
       return AllInt(o) ? IValue(Subtract(int64_t{0}, Int(o.at(0)))) : IValue(-Number(o.at(0)));
     }},
    {"_operator.eq", [](const Operands& o) { return Either(o, [](auto a, auto b) -> IValue { return a == b; }); }},
    {"_operator.ne", [](const Operands& o) { return Either(o, [](auto a, auto b) -> IValue { return a != b; }); }},
    {"_operator.lt", [](const Operands& o) { return Either(o, [](auto a, auto b) -> IValue { return a < b; }); }},
    {"_operator.le", [](const Operands& o) { return Either(o, [](auto a, auto b) -> IValue { return a <= b; }); }},
    {"_operator.gt", [](const Operands& o) { return Either(o, [](auto a, auto b) -> IValue { return a > b; }); }},
    {"_operator.ge", [](const Operands& o) { return Either(o, [](auto a, auto b) -> IValue { return a >= b; }); }},
    {"_operator.and_", [](const Operands& o) -> IValue { return o.at(0).toBool() && o.at(1).toBool(); }},
    {"_operator.or_", [](const Operands& o) -> IValue { return o.at(0).toBool() || o.at(1).toBool(); }},
    {"torch.sym_max",
     [](const Operands& o) { return Either(o, [](auto a, auto b) -> IValue { return std::max(a, b); }); }},
    {"torch.sym_min",
     [](const Operands& o) { return Either(o, [](auto a, auto b) -> IValue { return std::min(a, b); }); }},
    {"torch.sym_not", [](const Operands& o) -> IValue { return !o.at(0).toBool(); }},
    {"torch.sym_ite", [](const Operands& o) -> IValue { return o.at(0).toBool() ? o.at(1) : o.at(2); }},
    {"torch.sym_float", [](const Operands& o) -> IValue { return Number(o.at(0)); }},
    {"torch.sym_int", ToInt<std::trunc>},
    {"torch.sym_sqrt", [](const Operands& o) -> IValue { return std::sqrt(Number(o.at(0))); }},
    {"torch._sym_sqrt", [](const Operands& o) -> IValue { return std::sqrt(Number(o.at(0))); }},
    {"math.trunc", ToInt<std::trunc>},
    {"math.floor", ToInt<std::floor>},
    {"math.ceil", ToInt<std::ceil>},
    {"round", ToInt<std::nearbyint>},  // Python's: halves go to the even neighbour.
};

class SizeArithmetic : public Instruction {
 public:
  SizeArithmetic(Function function, std::vector<ArgumentSource> operands, size_t result)
      : function_(function), operands_(std::move(operands)), result_(result) {}

  void Run(const LayerContext&, Frame& frame) const override {
    Operands operands;
    for (const ArgumentSource& operand : operands_) operands.push_back(operand.Get(frame));
    frame[result_] = function_(operands);
  }

 private:
  const Function function_;
  const std::vector<ArgumentSource> operands_;
  const size_t result_;
};

}  // namespace

absl::StatusOr<std::unique_ptr<Instruction>> MakeSizeArithmetic(const exported::Node& node, Slots& slots) {
  if (node.target.starts_with("torch.ops.")) return nullptr;
  const auto* found = std::find_if(std::begin(kFunctions), std::end(kFunctions),
                                   [&](const auto& entry) { return entry.first == node.target; });
  if (found == std::end(kFunctions)) return absl::UnimplementedError(absl::StrCat(node.target, " is not supported"));
  std::vector<ArgumentSource> operands;
  for (const exported::NamedArgument& input : node.inputs) {
    GPIPE_ASSIGN_OR_RETURN(ArgumentSource operand,
                           ArgumentSource::Create(input.argument, c10::AnyType::get(), slots, c10::kCPU));
    operands.push_back(std::move(operand));
  }
  if (node.outputs.size() != 1 || node.outputs.front().names.size() != 1) {
    return absl::InvalidArgumentError("it must make one number");
  }
  return std::make_unique<SizeArithmetic>(found->second, std::move(operands), slots.Add(node.outputs[0].names[0]));
}

}  // namespace gpipe::worker
