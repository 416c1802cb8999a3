#include "worker/data/samples.h"

#include <ATen/ATen.h>

#include <algorithm>
#include <cstring>
#include <set>
#include <utility>

#include "common/status_macros.h"
#include "worker/data/tensor_file.h"

namespace gpipe::worker {
namespace {

class MemorySamples : public Samples {
 public:
  explicit MemorySamples(at::Tensor rows) : rows_(std::move(rows)) {}

  int64_t size() const override { return rows_.size(0); }

  absl::StatusOr<at::Tensor> Gather(absl::Span<const int64_t> numbers, bool pinned) const override {
    const at::Tensor index =
        at::from_blob(const_cast<int64_t*>(numbers.data()), {static_cast<int64_t>(numbers.size())}, at::kLong);
    at::Tensor rows = rows_.index_select(0, index);
    return pinned ? rows.pin_memory() : rows;
  }

 private:
  const at::Tensor rows_;
};

template <typename T>
void Widen(const char* from, int64_t count, int64_t* to) {
  for (int64_t i = 0; i < count; ++i) {
    T value;
    std::memcpy(&value, from + i * static_cast<int64_t>(sizeof(T)), sizeof(T));  // Files promise no alignment.
    to[i] = static_cast<int64_t>(value);
  }
}

class FileSamples : public Samples {
 public:
  FileSamples(std::vector<std::shared_ptr<const MappedFile>> files, data::SampleTensor tensor)
      : files_(std::move(files)), tensor_(std::move(tensor)), bytes_(static_cast<uint64_t>(tensor_.stored_bytes())) {
    int64_t first = 0;
    for (const data::Part& part : tensor_.parts) firsts_.push_back(std::exchange(first, first + part.samples));
  }

  int64_t size() const override { return tensor_.samples; }

  absl::StatusOr<at::Tensor> Gather(absl::Span<const int64_t> numbers, bool pinned) const override {
    const std::vector<Run> runs = RunsOf(numbers);
    GPIPE_RETURN_IF_ERROR(Announce(runs));
    std::vector<int64_t> shape = {static_cast<int64_t>(numbers.size())};
    shape.insert(shape.end(), tensor_.shape.begin(), tensor_.shape.end());
    at::Tensor rows = at::empty(shape, at::dtype(ToScalarType(tensor_.dtype)).pinned_memory(pinned));
    char* to = static_cast<char*>(rows.mutable_data_ptr());
    for (const Run& run : runs) to = Copy(run, to);
    return rows;
  }

 private:
  // Samples that lie one behind the other.
  struct Run {
    const MappedFile* file = nullptr;
    uint64_t begin = 0;
    int64_t samples = 0;
  };

  std::vector<Run> RunsOf(absl::Span<const int64_t> numbers) const {
    std::vector<Run> runs;
    for (const int64_t number : numbers) {
      const size_t part = std::upper_bound(firsts_.begin(), firsts_.end(), number) - firsts_.begin() - 1;
      const MappedFile* file = files_[tensor_.parts[part].file].get();
      const uint64_t begin = tensor_.parts[part].begin + static_cast<uint64_t>(number - firsts_[part]) * tensor_.stride;
      const bool goes_on = !runs.empty() && runs.back().file == file &&
                           runs.back().begin + static_cast<uint64_t>(runs.back().samples) * tensor_.stride == begin;
      if (!goes_on) runs.push_back({.file = file, .begin = begin, .samples = 0});
      ++runs.back().samples;
    }
    return runs;
  }

  absl::Status Announce(const std::vector<Run>& runs) const {
    std::set<const MappedFile*> checked;  // Each once, however often a shuffled batch comes back to it.
    for (const Run& run : runs) {
      if (checked.insert(run.file).second) GPIPE_RETURN_IF_ERROR(run.file->CheckUnchanged());
      if (bytes_ > 0) run.file->WillNeed(run.begin, static_cast<uint64_t>(run.samples) * bytes_);
    }
    return absl::OkStatus();
  }

  // Returns where the next run goes.
  char* Copy(const Run& run, char* to) const {
    const char* from = run.file->data() + run.begin;
    const int64_t elements = run.samples * tensor_.elements();
    int64_t* wide = reinterpret_cast<int64_t*>(to);
    switch (tensor_.storage) {
      case data::Storage::kAsTyped:
        if (bytes_ > 0) std::memcpy(to, from, static_cast<uint64_t>(run.samples) * bytes_);
        return to + static_cast<uint64_t>(run.samples) * bytes_;
      case data::Storage::kUint8:
        Widen<uint8_t>(from, elements, wide);
        break;
      case data::Storage::kUint16:
        Widen<uint16_t>(from, elements, wide);
        break;
      case data::Storage::kUint32:
        Widen<uint32_t>(from, elements, wide);
        break;
      case data::Storage::kInt32:
        Widen<int32_t>(from, elements, wide);
        break;
    }
    return reinterpret_cast<char*>(wide + elements);
  }

  const std::vector<std::shared_ptr<const MappedFile>> files_;
  const data::SampleTensor tensor_;
  const uint64_t bytes_;         // Stored, of one sample.
  std::vector<int64_t> firsts_;  // The number of each part's first sample.
};

}  // namespace

std::unique_ptr<Samples> RowsOf(at::Tensor rows) { return std::make_unique<MemorySamples>(std::move(rows)); }

std::unique_ptr<Samples> SamplesIn(std::vector<std::shared_ptr<const MappedFile>> files, data::SampleTensor tensor) {
  return std::make_unique<FileSamples>(std::move(files), std::move(tensor));
}

}  // namespace gpipe::worker
