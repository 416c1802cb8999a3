#ifndef GPIPE_COMMON_DESCRIPTOR_LIMIT_H_
#define GPIPE_COMMON_DESCRIPTOR_LIMIT_H_

#include <sys/resource.h>

namespace gpipe {

// Lets this process open as many files and connections as the system allows it at most. The usual limit of 1024 is for
// programs that use select(); a server runs into it with a thousand connections, and then accepts none any more.
inline void RaiseDescriptorLimit() {
  rlimit limit{};
  if (getrlimit(RLIMIT_NOFILE, &limit) != 0) return;
  limit.rlim_cur = limit.rlim_max;
  setrlimit(RLIMIT_NOFILE, &limit);  // Where it is refused, the limit stays what it was.
}

}  // namespace gpipe

#endif  // GPIPE_COMMON_DESCRIPTOR_LIMIT_H_
