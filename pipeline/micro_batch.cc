#include <algorithm>

#include "pipeline/schedule.h"

namespace gpipe::pipeline {

std::vector<int64_t> MicroBatchSizes(int64_t batch, int64_t chunks) {
  const int64_t count = std::min(batch, chunks);
  std::vector<int64_t> sizes(count, batch / count);
  for (int64_t i = 0; i < batch % count; ++i) ++sizes[i];
  return sizes;
}

double BubbleShare(int workers, int micro_batches) {
  return static_cast<double>(workers - 1) / static_cast<double>(micro_batches + workers - 1);
}

}  // namespace gpipe::pipeline
