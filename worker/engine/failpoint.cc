#include "worker/engine/failpoint.h"

#include <algorithm>
#include <csignal>

#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "common/status_macros.h"
#include "common/string_view.h"

namespace gpipe::worker {
namespace {

absl::Status BadFailpoint(std::string_view text, std::string_view what) {
  return absl::InvalidArgumentError(absl::StrCat("GPIPE_FAILPOINT=", AbslView(text), ": ", AbslView(what),
                                                 "; it reads <name>=stop|kill|error|nan|oom[@k]"));
}

}  // namespace

absl::StatusOr<Failpoint::Effect> Failpoint::ParseEffect(std::string_view text) {
  if (text == "stop") return Effect::kStop;
  if (text == "kill") return Effect::kKill;
  if (text == "error") return Effect::kError;
  if (text == "nan") return Effect::kNan;
  if (text == "oom") return Effect::kOom;
  return absl::InvalidArgumentError(absl::StrCat("unknown effect '", AbslView(text), "'"));
}

absl::StatusOr<Failpoint> Failpoint::Parse(std::string_view text) {
  Failpoint point;
  if (text.empty()) return point;
  const size_t equals = text.find('=');
  if (equals == text.npos) return BadFailpoint(text, "no '='");
  const std::string_view name = text.substr(0, equals);
  if (std::ranges::find(failpoint::kAll, name) == std::end(failpoint::kAll)) return BadFailpoint(text, "no such place");
  std::string_view effect = text.substr(equals + 1);
  if (const size_t at = effect.find('@'); at != effect.npos) {
    const std::string_view count = effect.substr(at + 1);
    if (!absl::SimpleAtoi(AbslView(count), &point.hits_left_) || point.hits_left_ < 1) {
      return BadFailpoint(text, "the number after '@' counts from 1");
    }
    effect = effect.substr(0, at);
  }
  absl::StatusOr<Effect> parsed = ParseEffect(effect);
  if (!parsed.ok()) return BadFailpoint(text, StdView(parsed.status().message()));
  point.effect_ = *parsed;
  point.name_ = name;
  return point;
}

bool Failpoint::Count(std::string_view name) { return armed() && name == name_ && hits_left_ > 0 && --hits_left_ == 0; }

absl::Status Failpoint::Hit(std::string_view name, absl::FunctionRef<absl::Status()> block) {
  if (effect_ == Effect::kNan || !Count(name)) return absl::OkStatus();
  switch (effect_) {
    case Effect::kStop:
      return block();
    case Effect::kKill:
      std::raise(SIGKILL);
      break;
    case Effect::kError:
      return absl::InternalError(absl::StrCat("failpoint ", name_));
    case Effect::kOom:
      return absl::ResourceExhaustedError(absl::StrCat("out of memory: failpoint ", name_));
    case Effect::kNan:
      break;
  }
  return absl::OkStatus();
}

bool Failpoint::HitNan(std::string_view name) { return effect_ == Effect::kNan && Count(name); }

}  // namespace gpipe::worker
