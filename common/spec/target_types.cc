#include "common/spec/target_types.h"

#include "absl/strings/str_cat.h"
#include "common/safetensors/header.h"
#include "common/string_view.h"

namespace gpipe::spec {
namespace {

constexpr char kFloating[] = "F32, F64, F16 or BF16";

bool IsInteger(v1::DataType dtype) {
  switch (dtype) {
    case v1::DATA_TYPE_INT64:
    case v1::DATA_TYPE_INT32:
    case v1::DATA_TYPE_INT16:
    case v1::DATA_TYPE_INT8:
    case v1::DATA_TYPE_UINT8:
    case v1::DATA_TYPE_UINT16:
    case v1::DATA_TYPE_UINT32:
    case v1::DATA_TYPE_UINT64:
    case v1::DATA_TYPE_BOOL:
      return true;
    default:
      return false;
  }
}

std::string ProblemWithClasses(const v1::CrossEntropy& loss, v1::DataType dtype) {
  if (dtype == v1::DATA_TYPE_INT64 || dtype == v1::DATA_TYPE_UINT8) return "";
  if (!IsFloating(dtype)) {
    return absl::StrCat("cross_entropy needs a target of numbers of classes, I64 or U8, or of probabilities of the ",
                        "classes, ", kFloating);
  }
  if (!loss.has_ignore_index() || loss.ignore_index() < 0) return "";
  return "cross_entropy with probabilities of classes for targets has no use for ignore_index: leave it out, or give "
         "numbers of classes, I64 or U8";
}

std::string ProblemWithKind(const v1::Loss& loss, v1::DataType dtype) {
  if (loss.has_cross_entropy()) return ProblemWithClasses(loss.cross_entropy(), dtype);
  if (IsFloating(dtype)) return "";
  if (loss.has_bce_with_logits()) return absl::StrCat("bce_with_logits needs a target that is ", kFloating);
  return IsInteger(dtype) ? "" : absl::StrCat("mse needs a target that is ", kFloating, ", or whole numbers");
}

}  // namespace

bool IsFloating(v1::DataType dtype) {
  return dtype == v1::DATA_TYPE_FLOAT32 || dtype == v1::DATA_TYPE_FLOAT64 || dtype == v1::DATA_TYPE_FLOAT16 ||
         dtype == v1::DATA_TYPE_BFLOAT16;
}

std::string ProblemWithTarget(const v1::Loss& loss, v1::DataType dtype) {
  const std::string problem = ProblemWithKind(loss, dtype);
  return problem.empty() ? "" : absl::StrCat(problem, "; this is ", AbslView(safetensors::DtypeName(dtype)));
}

}  // namespace gpipe::spec
