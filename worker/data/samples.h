#ifndef GPIPE_WORKER_DATA_SAMPLES_H_
#define GPIPE_WORKER_DATA_SAMPLES_H_

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <memory>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/types/span.h"
#include "common/data/sample_table.h"
#include "worker/data/mapped_file.h"

namespace gpipe::worker {

// The samples of one tensor of a data set, read by their numbers. Used by one thread at a time.
class Samples {
 public:
  virtual ~Samples() = default;

  virtual int64_t size() const = 0;

  // A new CPU tensor with these samples in this order, in pinned memory if asked for. FAILED_PRECONDITION: a file was
  // changed. REQUIRES: all numbers are in [0, size()).
  virtual absl::StatusOr<at::Tensor> Gather(absl::Span<const int64_t> numbers, bool pinned) const = 0;
};

// Samples in memory: the rows of a tensor.
std::unique_ptr<Samples> RowsOf(at::Tensor rows);

// Samples in mapped files; `files` are the table's.
std::unique_ptr<Samples> SamplesIn(std::vector<std::shared_ptr<const MappedFile>> files, data::SampleTensor tensor);

}  // namespace gpipe::worker

#endif  // GPIPE_WORKER_DATA_SAMPLES_H_
