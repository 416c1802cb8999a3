#include "client/local/machine.h"

#include <sched.h>

#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <fstream>
#include <limits>
#include <string>
#include <vector>

#include "absl/strings/match.h"
#include "absl/strings/str_split.h"

namespace gpipe::client {

int CountCores() {
  cpu_set_t cores;
  CPU_ZERO(&cores);
  return sched_getaffinity(0, sizeof(cores), &cores) == 0 ? CPU_COUNT(&cores) : 1;
}

int64_t FreeMemory() {
  std::ifstream info("/proc/meminfo");
  std::string name, unit;
  int64_t kibibytes = 0;
  while (info >> name >> kibibytes && std::getline(info, unit)) {
    if (name == "MemAvailable:") return kibibytes * 1024;
  }
  return std::numeric_limits<int64_t>::max();  // Not known: no reason to refuse anything.
}

int CountGpus() {
  if (const char* visible = std::getenv("CUDA_VISIBLE_DEVICES")) {
    const std::vector<std::string> devices = absl::StrSplit(visible, ',', absl::SkipWhitespace());
    // CUDA stops looking at the first one that is none: -1 hides all.
    const auto hidden = std::ranges::find_if(devices, [](const auto& d) { return absl::StartsWith(d, "-"); });
    return static_cast<int>(hidden - devices.begin());
  }
  std::FILE* list = popen("nvidia-smi -L 2>/dev/null", "r");
  if (list == nullptr) return 0;
  int count = 0;
  char line[512];
  while (std::fgets(line, sizeof(line), list) != nullptr) count += absl::StartsWith(line, "GPU ") ? 1 : 0;
  pclose(list);
  return count;
}

}  // namespace gpipe::client
