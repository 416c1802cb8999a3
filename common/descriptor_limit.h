#ifndef GPIPE_COMMON_DESCRIPTOR_LIMIT_H_
#define GPIPE_COMMON_DESCRIPTOR_LIMIT_H_

#include <sys/resource.h>

#include <cstddef>
#include <filesystem>
#include <iterator>
#include <optional>
#include <system_error>

namespace gpipe {

// Lets this process open as many files and connections as the system allows it at most. The usual limit of 1024 is for
// programs that use select(); a server runs into it with a thousand connections, and then accepts none any more.
inline void RaiseDescriptorLimit() {
  rlimit limit{};
  if (getrlimit(RLIMIT_NOFILE, &limit) != 0) return;
  limit.rlim_cur = limit.rlim_max;
  setrlimit(RLIMIT_NOFILE, &limit);  // Where it is refused, the limit stays what it was.
}

// How many this process may have open; 0: that is not known.
inline size_t MostDescriptors() {
  rlimit limit{};
  return getrlimit(RLIMIT_NOFILE, &limit) == 0 ? limit.rlim_cur : 0;
}

// How many it has open, with the one that it takes to look; nullopt: it cannot look, as when there is none left for
// that.
inline std::optional<size_t> OpenDescriptors() {
  std::error_code error;
  const auto count = std::distance(std::filesystem::directory_iterator("/proc/self/fd", error), {});
  return error ? std::nullopt : std::optional<size_t>(count);
}

}  // namespace gpipe

#endif  // GPIPE_COMMON_DESCRIPTOR_LIMIT_H_
