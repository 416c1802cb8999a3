// Moves one file to or from an orchestrator, as clients and workers do, and says how fast.
// Usage: transfer_bench send ADDRESS FILE
//        transfer_bench fetch ADDRESS SHA256 SIZE CONNECTIONS [OFFSET LENGTH]: into memory, as a worker its weights
//        transfer_bench pull ADDRESS SHA256 SIZE CONNECTIONS FILE: into a file, checked by its hash

#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <string>
#include <vector>

#include "common/artifacts/file_hash.h"
#include "common/artifacts/hash_memory.h"
#include "common/artifacts/transfer.h"
#include "common/malloc_setup.h"

namespace {

using gpipe::ArtifactConnections;
using Clock = std::chrono::steady_clock;

// What a tensor of a large model has.
constexpr int64_t kTensorBytes = 64 << 20;

gpipe::v1::ArtifactRef RefOf(char** argv) {
  gpipe::v1::ArtifactRef ref;
  ref.set_sha256(argv[3]);
  ref.set_size(std::atoll(argv[4]));
  return ref;
}

int Report(const absl::Status& status, int64_t bytes, Clock::time_point begin) {
  if (!status.ok()) {
    std::fprintf(stderr, "%s\n", status.ToString().c_str());
    return 1;
  }
  const double seconds = std::chrono::duration<double>(Clock::now() - begin).count();
  std::printf("{\"bytes\": %lld, \"seconds\": %.4f}\n", static_cast<long long>(bytes), seconds);
  return 0;
}

int Send(char** argv) {
  ArtifactConnections connections({argv[2]});
  gpipe::HashMemory memory(gpipe::HashMemory::DefaultFile());
  gpipe::TransferOptions options;
  options.memory = &memory;
  const auto file = gpipe::HashFile(argv[3], options);  // Not what is measured.
  if (!file.ok()) return Report(file.status(), 0, {});
  std::printf("{\"sha256\": \"%s\", \"size\": %lld}\n", file->ref.sha256().c_str(),
              static_cast<long long>(file->ref.size()));
  const auto begin = Clock::now();
  return Report(gpipe::UploadFile(connections, argv[3], options).status(), file->ref.size(), begin);
}

int Fetch(int argc, char** argv) {
  const gpipe::v1::ArtifactRef ref = RefOf(argv);
  ArtifactConnections connections({argv[2]}, std::atoi(argv[5]));
  const int64_t offset = argc > 7 ? std::atoll(argv[6]) : 0;
  const int64_t length = argc > 7 ? std::atoll(argv[7]) : ref.size();
  std::vector<char> tensor(kTensorBytes);
  const auto begin = Clock::now();
  absl::Status status;
  for (int64_t at = 0; at < length && status.ok(); at += kTensorBytes) {
    const auto bytes = static_cast<size_t>(std::min(kTensorBytes, length - at));
    status = gpipe::ReadRange(connections, ref, offset + at, absl::MakeSpan(tensor.data(), bytes));
  }
  return Report(status, length, begin);
}

int Pull(char** argv) {
  const gpipe::v1::ArtifactRef ref = RefOf(argv);
  ArtifactConnections connections({argv[2]}, std::atoi(argv[5]));
  const auto begin = Clock::now();
  return Report(gpipe::DownloadFile(connections, ref, argv[6]), ref.size(), begin);
}

}  // namespace

int main(int argc, char** argv) {
  gpipe::KeepFreedPieces();
  if (argc == 4 && std::strcmp(argv[1], "send") == 0) return Send(argv);
  if (argc >= 6 && std::strcmp(argv[1], "fetch") == 0) return Fetch(argc, argv);
  if (argc == 7 && std::strcmp(argv[1], "pull") == 0) return Pull(argv);
  std::fprintf(stderr, "usage: see the beginning of transfer_bench.cc\n");
  return 2;
}
