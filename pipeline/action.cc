#include "pipeline/action.h"

#include <algorithm>

#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"

namespace gpipe::pipeline {
namespace {

constexpr bool IsInOrder() {
  for (std::size_t i = 0; i < kKindTraits.size(); ++i) {
    if (kKindTraits[i].kind != static_cast<ActionKind>(i)) return false;
  }
  return true;
}
static_assert(IsInOrder(), "TraitsOf finds a kind by its place in the list");

// Takes a non-negative number off the front of `text`.
bool ConsumeNumber(std::string_view& text, int& number) {
  size_t digits = 0;
  while (digits < text.size() && text[digits] >= '0' && text[digits] <= '9') ++digits;
  if (!absl::SimpleAtoi(absl::string_view(text.data(), digits), &number)) return false;
  text.remove_prefix(digits);
  return true;
}

bool ConsumeKind(std::string_view& text, ActionKind& kind) {
  const size_t length = std::min(text.find_first_of("0123456789@"), text.size());
  for (const KindTraits& traits : kKindTraits) {
    if (traits.name != text.substr(0, length)) continue;
    kind = traits.kind;
    text.remove_prefix(length);
    return true;
  }
  return false;
}

}  // namespace

std::string ToString(const Action& action) {
  const std::string_view kind = KindName(action.kind);
  std::string text = absl::StrCat(action.stage, absl::string_view(kind.data(), kind.size()));
  if (HasMicroBatch(action.kind)) absl::StrAppend(&text, action.micro_batch);
  if (action.edge >= 0) absl::StrAppend(&text, "@", action.edge);
  return text;
}

absl::StatusOr<Action> ParseAction(std::string_view token) {
  Action action;
  std::string_view rest = token;
  bool good = ConsumeNumber(rest, action.stage) && ConsumeKind(rest, action.kind);
  if (good && HasMicroBatch(action.kind)) good = ConsumeNumber(rest, action.micro_batch);
  if (good && IsTransfer(action.kind) && !rest.empty() && rest.front() == '@') {
    rest.remove_prefix(1);
    good = ConsumeNumber(rest, action.edge);
  }
  if (!good || !rest.empty()) {
    return absl::InvalidArgumentError(
        absl::StrCat("not an action: '", absl::string_view(token.data(), token.size()), "'"));
  }
  return action;
}

}  // namespace gpipe::pipeline
