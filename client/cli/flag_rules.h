#ifndef GPIPE_CLIENT_CLI_FLAG_RULES_H_
#define GPIPE_CLIENT_CLI_FLAG_RULES_H_

#include <cstdint>
#include <string>
#include <vector>

#include "CLI/CLI.hpp"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"

namespace gpipe::client {

// What flags and arguments may be.

// CLI11 would add the rule to the help of every option.
inline CLI::Validator Quietly(CLI::Validator rule) { return rule.description(""); }
// CLI11's own one tells a limit of 309 digits.
inline CLI::Validator Positive() {
  const auto problem = [](const std::string& text) {
    int64_t number = 0;
    return absl::SimpleAtoi(text, &number) && number > 0 ? "" : absl::StrCat("'", text, "' is no whole number from 1");
  };
  return CLI::Validator(problem, "");
}
inline CLI::Validator PositiveSeconds() {
  const auto problem = [](const std::string& text) {
    double number = 0;
    return absl::SimpleAtod(text, &number) && number > 0 ? "" : absl::StrCat("'", text, "' is no number above 0");
  };
  return CLI::Validator(problem, "");
}
// What CLI::ExistingFile checks, but for what stands for standard input.
inline CLI::Validator SpecFile() {
  return CLI::Validator([](std::string& path) { return path == "-" ? "" : CLI::ExistingFile(path); }, "");
}
inline CLI::Validator OneOf(const std::vector<std::string>& words) { return Quietly(CLI::IsMember(words)); }

}  // namespace gpipe::client

#endif  // GPIPE_CLIENT_CLI_FLAG_RULES_H_
