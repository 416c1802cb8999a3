// Times the exact cut. Usage: partition_time LAYERS STAGES; prints the seconds of three kinds of model.

#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <functional>
#include <random>
#include <utility>

#include "pipeline/partitioner.h"

namespace {

using gpipe::pipeline::PartitionRequest;

// Workers of three speeds with links and memory limits; every layer's output goes to the next one, every eighth's also
// to a layer much further on.
PartitionRequest Model(int layers, int stages, const std::function<double(int)>& seconds_of) {
  PartitionRequest request;
  for (int stage = 0; stage < stages; ++stage) {
    auto& seconds = request.seconds.emplace_back();
    for (int i = 0; i < layers; ++i) seconds.push_back(seconds_of(i) * (1 + stage % 3));
    request.memory_limits.push_back(int64_t{400} * layers / stages);
  }
  request.memory.layer_bytes.assign(layers, 100);
  for (int i = 0; i + 1 < layers; ++i) {
    request.values.push_back({.made_by = i, .read_by = {i + 1}, .bytes = 1000 + i % 7, .has_gradient = true});
    if (i % 8 == 0 && i + 100 < layers) request.values.back().read_by.push_back(i + 100);
  }
  request.inputs_held = 1;
  request.links.assign(stages - 1, {.latency_seconds = 0.5, .bytes_per_second = 1000});
  for (auto& limit : request.memory_limits) limit += 200 * 1000;
  return request;
}

void Measure(const char* name, const PartitionRequest& request) {
  const auto begin = std::chrono::steady_clock::now();
  const auto balance = gpipe::pipeline::Partition(request);
  const std::chrono::duration<double> seconds = std::chrono::steady_clock::now() - begin;
  std::printf("%-14s %.3f s%s\n", name, seconds.count(), balance.ok() ? "" : "  (nothing fits)");
}

}  // namespace

int main(int argc, char** argv) {
  if (argc != 3) {
    std::fprintf(stderr, "usage: partition_time LAYERS STAGES\n");
    return 2;
  }
  const int layers = std::atoi(argv[1]), stages = std::atoi(argv[2]);
  std::mt19937 random(1);
  Measure("even layers", Model(layers, stages, [&](int) { return 90 + random() % 21; }));
  Measure("one giant", Model(layers, stages, [&](int i) { return i == layers / 2 ? 1e6 : 1 + random() % 3; }));
  Measure("free layers", Model(layers, stages, [&](int i) { return i % 50 == 0 ? 100 : 0; }));
  return 0;
}
