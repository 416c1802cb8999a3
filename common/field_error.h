#ifndef GPIPE_COMMON_FIELD_ERROR_H_
#define GPIPE_COMMON_FIELD_ERROR_H_

#include <cstddef>
#include <string>
#include <string_view>
#include <vector>

#include "absl/status/status.h"

namespace gpipe {

// One bad value of a spec or request: the path as in YAML (`model.sequential[3].linear.in_features`) and what is wrong.
struct FieldViolation {
  std::string field;
  std::string description;
};

// Collects violations, so that a user sees all of them at once; of very many the first hundred, and how many more there
// were. Not for use by two threads at once.
class FieldErrors {
 public:
  void Add(std::string_view field, std::string_view description);
  // All that such a status carries.
  void Add(const absl::Status& status);
  bool empty() const { return violations_.empty(); }

  // OK when empty; else INVALID_ARGUMENT whose message lists all violations, one a line, and whose payload is a
  // google.rpc.BadRequest, which travels through gRPC (common/grpc_status.h).
  absl::Status ToStatus() const;

 private:
  std::vector<FieldViolation> violations_;
  size_t left_out_ = 0;
};

absl::Status FieldError(std::string_view field, std::string_view description);

// The violations that a status carries; empty when it carries none.
std::vector<FieldViolation> FieldViolations(const absl::Status& status);

}  // namespace gpipe

#endif  // GPIPE_COMMON_FIELD_ERROR_H_
