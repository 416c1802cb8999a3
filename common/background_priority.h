#ifndef GPIPE_COMMON_BACKGROUND_PRIORITY_H_
#define GPIPE_COMMON_BACKGROUND_PRIORITY_H_

#include <sys/resource.h>
#include <unistd.h>

namespace gpipe {

// From now on the calling thread gets the processor when no other thread wants it: for work that nobody waits for. When
// somebody does, the others are idle, and it runs as fast as any.
inline void RunInBackground() {
  constexpr int kNicest = 19;
  // Only more urgent than before may be refused. On Linux a thread has a priority of its own.
  [[maybe_unused]] const int ignored = setpriority(PRIO_PROCESS, static_cast<id_t>(gettid()), kNicest);
}

}  // namespace gpipe

#endif  // GPIPE_COMMON_BACKGROUND_PRIORITY_H_
