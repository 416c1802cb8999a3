#ifndef GPIPE_WORKER_EXPORTED_DEFERRED_STATISTICS_H_
#define GPIPE_WORKER_EXPORTED_DEFERRED_STATISTICS_H_

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <map>

#include "worker/model/channel_statistics.h"

namespace gpipe::worker {

// What batch norm would have written to its buffers, micro-batch by micro-batch, until the mini-batch is complete: then
// the running statistics move once, by those of the whole mini-batch, and count one batch. Used by one thread.
class DeferredStatistics {
 public:
  // The batch norm at `position` of the program saw `input`, [N, C, ...].
  void Add(uint64_t position, const at::Tensor& input, const at::Tensor& running_mean, const at::Tensor& running_var,
           double momentum);
  // The node at `position` counts batches in this buffer.
  void Count(uint64_t position, const at::Tensor& batches) { counters_.emplace(position, batches); }

  // In the order of the program, which matters where two batch norms are one module.
  void Commit();

 private:
  struct Pending {
    ChannelStatistics statistics;
    at::Tensor running_mean, running_var;
    double momentum = 0;
  };

  std::map<uint64_t, Pending> pending_;
  std::map<uint64_t, at::Tensor> counters_;
};

}  // namespace gpipe::worker

#endif  // GPIPE_WORKER_EXPORTED_DEFERRED_STATISTICS_H_
