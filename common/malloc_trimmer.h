#ifndef GPIPE_COMMON_MALLOC_TRIMMER_H_
#define GPIPE_COMMON_MALLOC_TRIMMER_H_

#include <thread>

#include "absl/synchronization/notification.h"
#include "absl/time/time.h"

namespace gpipe {

// Gives memory that was freed back to the system, on a thread of its own. By itself glibc gives back no more than what
// lies at the end of an arena, where one small block that is still used keeps all before it: a server would stay as
// large as it was when most was asked of it. For programs that have called ShareArenas (malloc_setup.h): of two arenas
// no more is left than 64 MiB at the end of the second.
class MallocTrimmer {
 public:
  // Freed pieces of one transfer are still there for the next; what a trim costs does not show in so long.
  static constexpr absl::Duration kInterval = absl::Seconds(10);

  MallocTrimmer();
  ~MallocTrimmer();
  MallocTrimmer(const MallocTrimmer&) = delete;
  MallocTrimmer& operator=(const MallocTrimmer&) = delete;

 private:
  absl::Notification stopped_;
  std::jthread thread_;
};

}  // namespace gpipe

#endif  // GPIPE_COMMON_MALLOC_TRIMMER_H_
