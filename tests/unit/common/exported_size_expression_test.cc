#include <gtest/gtest.h>

#include "absl/strings/str_cat.h"
#include "common/exported/size_expression.h"

namespace gpipe::exported {
namespace {

const Symbols kSymbols = {{"s77", 6}, {"s27", 12}};
const std::string kBatch = "Symbol('s77', positive=True, integer=True)";
const std::string kLength = "Symbol('s27', positive=True, integer=True)";

std::optional<int64_t> Evaluate(const std::string& expression) { return EvaluateSize(expression, kSymbols); }

TEST(SizeExpressionTest, EvaluatesWhatSympyPrints) {
  EXPECT_EQ(Evaluate("Integer(-4)"), -4);
  EXPECT_EQ(Evaluate(kBatch), 6);
  EXPECT_EQ(Evaluate(absl::StrCat("Mul(Integer(8), ", kBatch, ", ", kLength, ")")), 576);
  EXPECT_EQ(Evaluate(absl::StrCat("Add(", kLength, ", Mul(Integer(-1), ", kBatch, "))")), 6);
  EXPECT_EQ(Evaluate(absl::StrCat("Max(Integer(4), ", kBatch, ")")), 6);
  EXPECT_EQ(Evaluate(absl::StrCat("Min(Integer(4), ", kBatch, ")")), 4);
  EXPECT_EQ(Evaluate(absl::StrCat("Pow(", kBatch, ", Integer(2))")), 36);
  EXPECT_EQ(Evaluate(absl::StrCat("Mul(Rational(1, 2), ", kBatch, ")")), 3);
  EXPECT_EQ(Evaluate(absl::StrCat("Mul(Pow(", kBatch, ", Integer(-1)), ", kLength, ")")), 2);
}

TEST(SizeExpressionTest, DividesAsPythonDoes) {
  EXPECT_EQ(Evaluate(absl::StrCat("FloorDiv(", kBatch, ", Integer(4))")), 1);
  EXPECT_EQ(Evaluate("FloorDiv(Integer(-7), Integer(2))"), -4);
  EXPECT_EQ(Evaluate("PythonMod(Integer(-7), Integer(2))"), 1);
  EXPECT_EQ(Evaluate(absl::StrCat("Mod(", kLength, ", Integer(5))")), 2);
  EXPECT_EQ(Evaluate("floor(Rational(-7, 2))"), -4);
  EXPECT_EQ(Evaluate("ceiling(Rational(-7, 2))"), -3);
}

TEST(SizeExpressionTest, IsNoNumberWithoutOne) {
  for (const std::string& expression : {
           std::string(),
           std::string("Symbol('u0', integer=True)"),
           std::string("2*Symbol('s77')"),
           std::string("Mul(Integer(2)"),
           std::string("Integer(2) "),
           std::string("Unknown(Integer(2))"),
           std::string("Rational(1, 2)"),
           std::string("FloorDiv(Integer(1), Integer(0))"),
           std::string("Max()"),
           std::string("Mul(Integer(4611686018427387904), Integer(4))"),
           std::string("Pow(Integer(2), Integer(1000000000))"),
           std::string("Symbol('s77"),
           std::string("Integer(99999999999999999999)"),
           std::string(100000, '('),
       }) {
    EXPECT_EQ(Evaluate(expression), std::nullopt) << expression.substr(0, 60);
  }
  std::string deep;
  for (int i = 0; i < 100000; ++i) deep += "Add(";
  EXPECT_EQ(Evaluate(deep), std::nullopt);
}

TEST(SizeExpressionTest, KnowsSizesThatOnlyARunTells) {
  EXPECT_TRUE(DependsOnData(Size("Symbol('u0', integer=True)")));
  EXPECT_TRUE(DependsOnData(Size(absl::StrCat("Add(", kBatch, ", Symbol('u12', integer=True))"))));
  EXPECT_FALSE(DependsOnData(Size(kBatch)));
  EXPECT_FALSE(DependsOnData(Size(int64_t{3})));
}

TEST(SizeExpressionTest, KnowsAPlainSymbol) {
  EXPECT_EQ(SymbolOf(kBatch), "s77");
  EXPECT_EQ(SymbolOf("Symbol('s1')"), "s1");
  EXPECT_EQ(SymbolOf(absl::StrCat("Mul(Integer(2), ", kBatch, ")")), std::nullopt);
  EXPECT_EQ(SymbolOf("Symbol('s1"), std::nullopt);
  EXPECT_EQ(SymbolOf(""), std::nullopt);
}

}  // namespace
}  // namespace gpipe::exported
