#ifndef GPIPE_ORCHESTRATOR_SCHEDULING_RESUME_TOKEN_H_
#define GPIPE_ORCHESTRATOR_SCHEDULING_RESUME_TOKEN_H_

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>

#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "common/random_id.h"
#include "common/string_view.h"

namespace gpipe::orchestrator {

// Resume tokens of watches, `0f1e2d3c4b5a-17`: the number of an update, and which list of updates it is in.

// For a new list: tells it from those of other processes.
inline std::string NewEpoch() { return RandomId().substr(0, 12); }

inline std::string ResumeToken(std::string_view epoch, int64_t sequence) {
  return absl::StrCat(AbslView(epoch), "-", sequence);
}

// nullopt when the token is none of this list, whose newest update is `newest`.
inline std::optional<int64_t> SequenceIn(std::string_view token, std::string_view epoch, int64_t newest) {
  int64_t sequence = 0;
  if (!token.starts_with(epoch) || token.substr(epoch.size(), 1) != "-") return std::nullopt;
  const bool is_number = absl::SimpleAtoi(AbslView(token.substr(epoch.size() + 1)), &sequence);
  if (!is_number || sequence < 0 || sequence > newest) return std::nullopt;
  return sequence;
}

}  // namespace gpipe::orchestrator

#endif  // GPIPE_ORCHESTRATOR_SCHEDULING_RESUME_TOKEN_H_
