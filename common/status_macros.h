#ifndef GPIPE_COMMON_STATUS_MACROS_H_
#define GPIPE_COMMON_STATUS_MACROS_H_

#include <utility>

#include "absl/status/status.h"
#include "absl/status/statusor.h"

// Returns from the enclosing function when `expression` is not OK.
#define GPIPE_RETURN_IF_ERROR(expression)                                                  \
  do {                                                                                     \
    if (absl::Status gpipe_status = (expression); !gpipe_status.ok()) return gpipe_status; \
  } while (false)

#define GPIPE_CONCAT_INNER(a, b) a##b
#define GPIPE_CONCAT(a, b) GPIPE_CONCAT_INNER(a, b)

// Assigns the value of a StatusOr to `target`, or returns its status from the enclosing function.
#define GPIPE_ASSIGN_OR_RETURN(target, expression) \
  GPIPE_ASSIGN_OR_RETURN_IMPL(GPIPE_CONCAT(gpipe_status_or_, __LINE__), target, expression)
#define GPIPE_ASSIGN_OR_RETURN_IMPL(temporary, target, expression) \
  auto temporary = (expression);                                   \
  if (!temporary.ok()) return std::move(temporary).status();       \
  target = std::move(temporary).value()

#endif  // GPIPE_COMMON_STATUS_MACROS_H_
