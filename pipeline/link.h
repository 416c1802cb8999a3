#ifndef GPIPE_PIPELINE_LINK_H_
#define GPIPE_PIPELINE_LINK_H_

#include <cstdint>
#include <limits>

namespace gpipe::pipeline {

// The way between two workers. As it is, it costs no time.
struct Link {
  double latency_seconds = 0;
  double bytes_per_second = std::numeric_limits<double>::infinity();

  // Of one message; nothing to send takes no time.
  double SecondsFor(int64_t bytes) const {
    return bytes == 0 ? 0 : latency_seconds + static_cast<double>(bytes) / bytes_per_second;
  }
};

}  // namespace gpipe::pipeline

#endif  // GPIPE_PIPELINE_LINK_H_
