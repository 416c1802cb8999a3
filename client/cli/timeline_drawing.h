#ifndef GPIPE_CLIENT_CLI_TIMELINE_DRAWING_H_
#define GPIPE_CLIENT_CLI_TIMELINE_DRAWING_H_

#include <string>

#include "gpipe/v1/monitoring.pb.h"

namespace gpipe::client {

// The GPipe paper's picture of a step as it was, as an SVG file: a row per worker with what it computed, and the bubble
// shaded between; under it the share of the bubble, beside that of the forecast and of fill and drain alone.
std::string DrawTimeline(const v1::StepTimeline& timeline);

}  // namespace gpipe::client

#endif  // GPIPE_CLIENT_CLI_TIMELINE_DRAWING_H_
