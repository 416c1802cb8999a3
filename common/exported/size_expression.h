#ifndef GPIPE_COMMON_EXPORTED_SIZE_EXPRESSION_H_
#define GPIPE_COMMON_EXPORTED_SIZE_EXPRESSION_H_

#include <cstdint>
#include <map>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "common/exported/program.h"

namespace gpipe::exported {

// Sizes that are no numbers, as torch.export writes them: what sympy's srepr() prints of an expression in the sizes of
// the program's inputs, `Mul(Integer(2), Symbol('s77', positive=True, integer=True))`.

// Sizes by the name of their symbol (`s77`).
using Symbols = std::map<std::string, int64_t, std::less<>>;

// The expression's value; nullopt when it uses a symbol that has no value (torch calls the sizes that only a run can
// tell u0, u1, ...) or a function that is not known here, is no integer, or is too large.
std::optional<int64_t> EvaluateSize(std::string_view expression, const Symbols& symbols);

// A size of a program, or all of a tensor; nullopt where one of them has no value.
std::optional<int64_t> Evaluate(const Size& size, const Symbols& symbols);
std::optional<std::vector<int64_t>> EvaluateSizes(const std::vector<Size>& sizes, const Symbols& symbols);

// Whether no size of the inputs tells it, but only a run: it is u0, or made of it.
bool DependsOnData(const Size& size);

// The name of the symbol that the expression is; nullopt for any other expression.
std::optional<std::string> SymbolOf(std::string_view expression);

}  // namespace gpipe::exported

#endif  // GPIPE_COMMON_EXPORTED_SIZE_EXPRESSION_H_
