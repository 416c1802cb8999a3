#ifndef GPIPE_CLIENT_CLI_DISPLAY_H_
#define GPIPE_CLIENT_CLI_DISPLAY_H_

#include <cstdio>
#include <memory>

#include "gpipe/v1/pipeline_service.pb.h"

namespace gpipe::client {

enum class DisplayKind {
  kNone,   // Nothing: -q.
  kPlain,  // Lines, at most one about progress a second.
  kLive,   // A view redrawn in place, at most ten times a second.
  kJson,   // Each update as one line of JSON.
};

// Where the updates of a watched job go. Used by one thread; the live display has a thread of its own that draws.
class Display {
 public:
  virtual ~Display() = default;
  virtual void Show(const v1::WatchJobResponse& update) = 0;
  // The last state is on the screen, and the cursor below it, when this returns. Also done by the destructor.
  virtual void Finish() {}
};

// `out` must outlive the display.
std::unique_ptr<Display> MakeDisplay(DisplayKind kind, std::FILE* out);

// Live where `out` is a terminal that can, else plain.
DisplayKind LiveOrPlain(std::FILE* out);

}  // namespace gpipe::client

#endif  // GPIPE_CLIENT_CLI_DISPLAY_H_
