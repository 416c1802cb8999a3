#include "common/exported/size_expression.h"

#include <algorithm>
#include <cstdlib>
#include <limits>
#include <utility>
#include <vector>

#include "absl/strings/numbers.h"
#include "common/string_view.h"

namespace gpipe::exported {
namespace {

constexpr int kMaxDepth = 100;       // The evaluation is recursive.
constexpr int64_t kMaxExponent = 8;  // A size is a product of few others.

// Sympy divides exactly, and takes the floor only where it says so.
struct Fraction {
  int64_t numerator = 0;
  int64_t denominator = 1;  // Positive.
};

using Value = std::optional<Fraction>;
using Values = std::vector<Fraction>;

Value Make(__int128 numerator, __int128 denominator) {
  if (denominator == 0) return std::nullopt;
  if (denominator < 0) {
    numerator = -numerator;
    denominator = -denominator;
  }
  __int128 a = numerator < 0 ? -numerator : numerator, b = denominator;
  while (b != 0) a = std::exchange(b, a % b);
  if (a != 0) {
    numerator /= a;
    denominator /= a;
  }
  constexpr __int128 kMost = std::numeric_limits<int64_t>::max();
  if (numerator > kMost || numerator < -kMost || denominator > kMost) return std::nullopt;
  return Fraction{static_cast<int64_t>(numerator), static_cast<int64_t>(denominator)};
}

Value Add(const Fraction& a, const Fraction& b) {
  return Make(static_cast<__int128>(a.numerator) * b.denominator + static_cast<__int128>(b.numerator) * a.denominator,
              static_cast<__int128>(a.denominator) * b.denominator);
}

Value Multiply(const Fraction& a, const Fraction& b) {
  return Make(static_cast<__int128>(a.numerator) * b.numerator, static_cast<__int128>(a.denominator) * b.denominator);
}

Value Divide(const Fraction& a, const Fraction& b) { return Multiply(a, {b.denominator, b.numerator}); }

// Towards minus infinity.
Fraction Floor(const Fraction& a) {
  const int64_t quotient = a.numerator / a.denominator;
  return {quotient - static_cast<int64_t>(a.numerator % a.denominator < 0), 1};
}

bool Less(const Fraction& a, const Fraction& b) {
  return static_cast<__int128>(a.numerator) * b.denominator < static_cast<__int128>(b.numerator) * a.denominator;
}

Value Power(const Fraction& base, const Fraction& exponent) {
  if (exponent.denominator != 1 || std::abs(exponent.numerator) > kMaxExponent) return std::nullopt;
  Value power = Fraction{1, 1};
  for (int64_t i = 0; power && i < std::abs(exponent.numerator); ++i) power = Multiply(*power, base);
  return power && exponent.numerator < 0 ? Divide({1, 1}, *power) : power;
}

Value FloorDivide(const Fraction& a, const Fraction& b) {
  const Value quotient = Divide(a, b);
  return quotient ? Value(Floor(*quotient)) : std::nullopt;
}

Value Modulo(const Fraction& a, const Fraction& b) {
  const Value quotient = FloorDivide(a, b);
  const Value whole = quotient ? Multiply(*quotient, b) : std::nullopt;
  return whole ? Add(a, {-whole->numerator, whole->denominator}) : std::nullopt;
}

template <Value (*kFunction)(const Fraction&, const Fraction&)>
Value Fold(const Values& values) {
  Value result = values.front();
  for (size_t i = 1; result && i < values.size(); ++i) result = kFunction(*result, values[i]);
  return result;
}

template <Value (*kFunction)(const Fraction&, const Fraction&)>
Value Binary(const Values& values) {
  return values.size() == 2 ? kFunction(values[0], values[1]) : std::nullopt;
}

Value Ceiling(const Fraction& a) { return Fraction{-Floor({-a.numerator, a.denominator}).numerator, 1}; }

// Sympy's functions, and those that torch.utils._sympy.functions adds to them; each with one argument or more.
constexpr std::pair<std::string_view, Value (*)(const Values&)> kFunctions[] = {
    {"Add", Fold<Add>},
    {"Mul", Fold<Multiply>},
    {"Max", [](const Values& v) { return Value(*std::max_element(v.begin(), v.end(), Less)); }},
    {"Min", [](const Values& v) { return Value(*std::min_element(v.begin(), v.end(), Less)); }},
    {"Pow", Binary<Power>},
    {"PowByNatural", Binary<Power>},
    {"Rational", Binary<Divide>},
    {"FloorDiv", Binary<FloorDivide>},
    {"CleanDiv", Binary<FloorDivide>},
    {"Mod", Binary<Modulo>},
    {"PythonMod", Binary<Modulo>},
    {"floor", [](const Values& v) { return Value(Floor(v.front())); }},
    {"ceiling", [](const Values& v) { return Ceiling(v.front()); }},
};

// Reads an expression from its beginning on.
class Evaluation {
 public:
  Evaluation(std::string_view text, const Symbols& symbols) : rest_(text), symbols_(symbols) {}

  Value Run() {
    const Value value = Expression(0);
    return rest_.empty() ? value : std::nullopt;
  }

 private:
  Value Expression(int depth) {
    const std::string_view name = TakeUntil("(");
    if (depth > kMaxDepth || name.empty() || !Take("(")) return std::nullopt;
    if (name == "Integer") return Integer();
    if (name == "Symbol") return Symbol();
    const auto* found = std::find_if(std::begin(kFunctions), std::end(kFunctions),
                                     [&](const auto& function) { return function.first == name; });
    if (found == std::end(kFunctions)) return std::nullopt;
    Values arguments;
    do {
      // Rational(1, 2) has plain numbers.
      const Value argument = name == "Rational" ? Number() : Expression(depth + 1);
      if (!argument) return std::nullopt;
      arguments.push_back(*argument);
    } while (Take(", "));
    return Take(")") ? found->second(arguments) : std::nullopt;
  }

  Value Number() {
    int64_t number = 0;
    if (!absl::SimpleAtoi(AbslView(TakeUntil(",)")), &number)) return std::nullopt;
    return Fraction{number, 1};
  }

  Value Integer() {
    const Value number = Number();
    return Take(")") ? number : std::nullopt;
  }

  // 's77', positive=True, integer=True)
  Value Symbol() {
    if (!Take("'")) return std::nullopt;
    const auto found = symbols_.find(TakeUntil("'"));
    TakeUntil(")");
    return Take(")") && found != symbols_.end() ? Value(Fraction{found->second, 1}) : std::nullopt;
  }

  bool Take(std::string_view text) {
    if (!rest_.starts_with(text)) return false;
    rest_.remove_prefix(text.size());
    return true;
  }

  std::string_view TakeUntil(std::string_view ends) {
    const std::string_view taken = rest_.substr(0, rest_.find_first_of(ends));
    rest_.remove_prefix(taken.size());
    return taken;
  }

  std::string_view rest_;
  const Symbols& symbols_;
};

}  // namespace

std::optional<int64_t> EvaluateSize(std::string_view expression, const Symbols& symbols) {
  const Value value = Evaluation(expression, symbols).Run();
  return value && value->denominator == 1 ? std::optional(value->numerator) : std::nullopt;
}

std::optional<int64_t> Evaluate(const Size& size, const Symbols& symbols) {
  if (const auto* number = std::get_if<int64_t>(&size)) return *number;
  return EvaluateSize(std::get<std::string>(size), symbols);
}

std::optional<std::vector<int64_t>> EvaluateSizes(const std::vector<Size>& sizes, const Symbols& symbols) {
  std::vector<int64_t> values;
  for (const Size& size : sizes) {
    const std::optional<int64_t> value = Evaluate(size, symbols);
    if (!value) return std::nullopt;
    values.push_back(*value);
  }
  return values;
}

bool DependsOnData(const Size& size) {
  const auto* expression = std::get_if<std::string>(&size);
  return expression != nullptr && expression->find("Symbol('u") != std::string::npos;
}

std::optional<std::string> SymbolOf(std::string_view expression) {
  constexpr std::string_view kBegin = "Symbol('";
  if (!expression.starts_with(kBegin)) return std::nullopt;
  expression.remove_prefix(kBegin.size());
  const size_t end = expression.find('\'');
  if (end == std::string_view::npos || expression.find(')') + 1 != expression.size()) return std::nullopt;
  return std::string(expression.substr(0, end));
}

}  // namespace gpipe::exported
