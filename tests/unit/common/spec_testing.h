#ifndef GPIPE_TESTS_UNIT_COMMON_SPEC_TESTING_H_
#define GPIPE_TESTS_UNIT_COMMON_SPEC_TESTING_H_

#include <algorithm>
#include <ostream>
#include <string>
#include <string_view>
#include <vector>

#include "common/field_error.h"
#include "common/spec/reader.h"
#include "common/spec/validator.h"
#include "gmock/gmock.h"

namespace gpipe::spec {

// One thing wrong with a spec, as a user sees it.
struct Problem {
  int line;
  std::string field;
  std::string what;

  friend std::ostream& operator<<(std::ostream& out, const Problem& problem) {
    return out << problem.line << ": " << problem.field << ": " << problem.what;
  }
};

// Reads and, when that went well, validates.
inline std::vector<Problem> ProblemsOf(std::string_view text) {
  v1::JobSpec spec;
  SourceMap lines;
  absl::Status status = ReadYaml(text, spec, lines);
  if (status.ok()) status = Validate(spec);
  std::vector<Problem> problems;
  for (const FieldViolation& violation : FieldViolations(status)) {
    problems.push_back({lines.Line(violation.field), violation.field, violation.description});
  }
  return problems;
}

// A Problem with this line, this field, and this in its text.
inline auto IsProblem(int line, const std::string& field, const std::string& what) {
  return testing::AllOf(testing::Field("line", &Problem::line, line), testing::Field("field", &Problem::field, field),
                        testing::Field("what", &Problem::what, testing::HasSubstr(what)));
}

// `text` with the one place where `from` stands replaced. `line` is set to that place's line.
inline std::string Replaced(std::string text, std::string_view from, std::string_view to, int& line) {
  const size_t at = text.find(from);
  EXPECT_NE(at, std::string::npos) << from;
  EXPECT_EQ(text.find(from, at + 1), std::string::npos) << from << " stands twice";
  if (at == std::string::npos) return text;
  line = 1 + static_cast<int>(std::count(text.begin(), text.begin() + static_cast<std::ptrdiff_t>(at), '\n'));
  return text.replace(at, from.size(), to);
}

}  // namespace gpipe::spec

#endif  // GPIPE_TESTS_UNIT_COMMON_SPEC_TESTING_H_
