#include "worker/engine/attempt_state.h"

#include "absl/strings/str_cat.h"
#include "common/string_view.h"

namespace gpipe::worker {
namespace {

using State = AttemptState;
using Event = AttemptEvent;

struct Edge {
  State from;
  Event event;
  State to;
};

constexpr Edge kTable[] = {
    {State::kIdle, Event::kPrepare, State::kPreparing},
    {State::kPreparing, Event::kBuilt, State::kJoining},
    {State::kJoining, Event::kJoined, State::kRunning},
    {State::kRunning, Event::kRoundsDone, State::kFinishing},
    {State::kFinishing, Event::kUploaded, State::kFinished},
    {State::kFinished, Event::kRelease, State::kIdle},

    {State::kIdle, Event::kMeasure, State::kMeasuring},
    {State::kMeasuring, Event::kMeasured, State::kFinished},

    {State::kMeasuring, Event::kFail, State::kAborting},
    {State::kPreparing, Event::kFail, State::kAborting},
    {State::kJoining, Event::kFail, State::kAborting},
    {State::kRunning, Event::kFail, State::kAborting},
    {State::kFinishing, Event::kFail, State::kAborting},

    {State::kMeasuring, Event::kAbort, State::kAborting},
    {State::kPreparing, Event::kAbort, State::kAborting},
    {State::kJoining, Event::kAbort, State::kAborting},
    {State::kRunning, Event::kAbort, State::kAborting},
    {State::kFinishing, Event::kAbort, State::kAborting},
    {State::kFinished, Event::kAbort, State::kAborting},
    // An abort may follow a failure of our own, and two reasons to abort may cross.
    {State::kAborting, Event::kAbort, State::kAborting},
    {State::kAborting, Event::kAborted, State::kIdle},
};

}  // namespace

absl::StatusOr<AttemptState> Transition(AttemptState from, AttemptEvent event) {
  for (const Edge& edge : kTable) {
    if (edge.from == from && edge.event == event) return edge.to;
  }
  return absl::FailedPreconditionError(
      absl::StrCat("an attempt that is ", AbslView(ToString(from)), " cannot ", AbslView(ToString(event))));
}

std::string_view ToString(AttemptState state) {
  switch (state) {
    case State::kIdle:
      return "idle";
    case State::kMeasuring:
      return "measuring links";
    case State::kPreparing:
      return "preparing";
    case State::kJoining:
      return "joining";
    case State::kRunning:
      return "running";
    case State::kFinishing:
      return "finishing";
    case State::kFinished:
      return "finished";
    case State::kAborting:
      return "aborting";
  }
  return "unknown";
}

std::string_view ToString(AttemptEvent event) {
  switch (event) {
    case Event::kPrepare:
      return "prepare";
    case Event::kMeasure:
      return "measure links";
    case Event::kMeasured:
      return "have measured";
    case Event::kBuilt:
      return "be built";
    case Event::kJoined:
      return "have joined";
    case Event::kRoundsDone:
      return "end its rounds";
    case Event::kUploaded:
      return "have uploaded";
    case Event::kFail:
      return "fail";
    case Event::kAbort:
      return "abort";
    case Event::kRelease:
      return "be released";
    case Event::kAborted:
      return "have aborted";
  }
  return "unknown";
}

}  // namespace gpipe::worker
