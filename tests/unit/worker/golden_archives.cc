#include "tests/unit/worker/golden_archives.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <filesystem>

#include "tests/unit/paths.h"

namespace gpipe::worker {
namespace {

const std::filesystem::path kFolder = SourceFolder() / "tests/golden/exported";

}  // namespace

std::vector<std::string> GoldenArchives() {
  std::vector<std::string> names;
  for (const auto& entry : std::filesystem::directory_iterator(kFolder)) {
    if (entry.path().extension() == ".pt2") names.push_back(entry.path().stem());
  }
  std::sort(names.begin(), names.end());
  return names;
}

std::unique_ptr<Archive> OpenGoldenArchive(const std::string& name) {
  auto archive = Archive::Open(kFolder / (name + ".pt2"));
  EXPECT_TRUE(archive.ok()) << archive.status();
  return archive.ok() ? *std::move(archive) : nullptr;
}

std::unique_ptr<TensorFile> OpenGoldenTensors(const std::string& name) {
  auto file = TensorFile::Open(kFolder / (name + ".safetensors"));
  EXPECT_TRUE(file.ok()) << file.status();
  return file.ok() ? *std::move(file) : nullptr;
}

}  // namespace gpipe::worker
