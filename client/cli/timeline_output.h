#ifndef GPIPE_CLIENT_CLI_TIMELINE_OUTPUT_H_
#define GPIPE_CLIENT_CLI_TIMELINE_OUTPUT_H_

#include <cstdint>
#include <string>

#include "gpipe/v1/monitoring.pb.h"

namespace gpipe::client {

// A step as it was, for people and for other programs.

// The worker of a stage, as an index; -1 when the timeline does not say.
int WorkerOf(const v1::StepTimeline& timeline, int stage);
// From the beginning of the first action to the end of the last one, or the whole step if that is longer.
int64_t SpanNanos(const v1::StepTimeline& timeline);
// `F3`, `OPT`
std::string ActionName(const v1::ActionDone& action);
// `step 12 of digits-a1b2c3: 41.2 ms, bubble 38%, forecast 35%, ideal 33%`
std::string TimelineTitle(const v1::StepTimeline& timeline);

// Title, a row of letters per worker, and a table of the stages' times.
std::string RenderTimeline(const v1::StepTimeline& timeline);

// The trace event format, which ui.perfetto.dev and chrome://tracing read: a process per worker, a thread per stage.
std::string TraceOf(const v1::StepTimeline& timeline);

}  // namespace gpipe::client

#endif  // GPIPE_CLIENT_CLI_TIMELINE_OUTPUT_H_
