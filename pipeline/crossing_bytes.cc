#include "pipeline/crossing_bytes.h"

#include <algorithm>

namespace gpipe::pipeline {
namespace {

// Adds `bytes` to the begins first to last: here to the ends of that range, of which Accumulate makes sums.
void AddRange(int first, int last, int64_t bytes, std::vector<int64_t>& differences) {
  if (first > last) return;
  differences[first] += bytes;
  differences[last + 1] -= bytes;
}

void Accumulate(std::vector<int64_t>& differences) {
  for (size_t i = 1; i < differences.size(); ++i) differences[i] += differences[i - 1];
}

}  // namespace

CrossingBytes::CrossingBytes(const std::vector<LayerValue>& values, size_t layers)
    : values_(values), readers_before_(values.size(), 0), out_(layers + 1), in_(layers + 1), gradients_(layers + 1) {}

void CrossingBytes::MoveTo(size_t end) {
  for (auto* bytes : {&out_, &in_, &gradients_}) std::fill(bytes->begin(), bytes->end(), 0);
  for (size_t i = 0; i < values_.size(); ++i) {
    const LayerValue& value = values_[i];
    if (value.made_by >= static_cast<int>(end)) continue;
    size_t& readers = readers_before_[i];
    while (readers < value.read_by.size() && value.read_by[readers] < static_cast<int>(end)) ++readers;
    if (readers < value.read_by.size()) AddRange(0, value.made_by, value.bytes, out_);
    if (readers == 0) continue;
    const int last_reader = value.read_by[readers - 1];
    AddRange(value.made_by + 1, last_reader, value.bytes, in_);
    if (value.has_gradient) AddRange(value.made_by + 1, last_reader, value.bytes, gradients_);
  }
  for (auto* bytes : {&out_, &in_, &gradients_}) Accumulate(*bytes);
}

}  // namespace gpipe::pipeline
