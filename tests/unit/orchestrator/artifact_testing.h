#ifndef GPIPE_TESTS_UNIT_ORCHESTRATOR_ARTIFACT_TESTING_H_
#define GPIPE_TESTS_UNIT_ORCHESTRATOR_ARTIFACT_TESTING_H_

#include <cstring>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "common/file.h"
#include "common/safetensors/header.h"
#include "common/sha256.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "orchestrator/artifacts/artifact_store.h"

namespace gpipe::orchestrator {

MATCHER_P(HasCode, code, "") { return arg.code() == code; }

inline v1::ArtifactRef RefOf(std::string_view content) {
  Sha256 hash;
  hash.Update(content);
  v1::ArtifactRef ref;
  ref.set_sha256(hash.HexDigest());
  ref.set_size(static_cast<int64_t>(content.size()));
  return ref;
}

// One tensor of a file under test.
struct TestTensor {
  std::string name;
  v1::DataType dtype;
  std::vector<int64_t> shape;
  std::string bytes;
};

// A tensor of the given shape with these values, or zeroes.
template <typename T>
TestTensor MakeTensor(std::string name, v1::DataType dtype, std::vector<int64_t> shape, std::vector<T> values = {}) {
  size_t count = 1;
  for (int64_t size : shape) count *= static_cast<size_t>(size);
  values.resize(count);
  std::string bytes(count * sizeof(T), '\0');
  if (count > 0) std::memcpy(bytes.data(), values.data(), bytes.size());
  return TestTensor{std::move(name), dtype, std::move(shape), std::move(bytes)};
}
inline TestTensor Floats(std::string name, std::vector<int64_t> shape, std::vector<float> values = {}) {
  return MakeTensor<float>(std::move(name), v1::DATA_TYPE_FLOAT32, std::move(shape), std::move(values));
}
inline TestTensor Ints(std::string name, std::vector<int64_t> shape, std::vector<int64_t> values = {}) {
  return MakeTensor<int64_t>(std::move(name), v1::DATA_TYPE_INT64, std::move(shape), std::move(values));
}

inline std::string SafetensorsBytes(const std::vector<TestTensor>& tensors) {
  std::vector<std::pair<std::string, safetensors::TensorInfo>> infos;
  std::string data;
  for (const TestTensor& tensor : tensors) {
    safetensors::TensorInfo info;
    info.dtype = tensor.dtype;
    info.shape = tensor.shape;
    infos.emplace_back(tensor.name, info);
    data += tensor.bytes;
  }
  return safetensors::BuildHeader(infos) + data;
}

// An artifact store in a folder of its own.
class ArtifactTest : public testing::Test {
 protected:
  ArtifactTest() : folder_(*TemporaryFolder::Create("artifact_test")) { Reopen({}); }

  void Reopen(const ArtifactStore::Options& options) {
    auto store = ArtifactStore::Open(folder_.path() / "artifacts", options);
    ASSERT_TRUE(store.ok()) << store.status();
    store_ = *std::move(store);
  }

  v1::ArtifactRef Put(std::string_view content) {
    auto ref = store_->Put(content);
    EXPECT_TRUE(ref.ok()) << ref.status();
    return ref.ok() ? *ref : v1::ArtifactRef();
  }

  std::string Content(const v1::ArtifactRef& ref) {
    auto path = store_->Path(ref);
    if (!path.ok()) return path.status().ToString();
    return *ReadFile(*path);
  }

  // Regular files anywhere under the store's folder.
  int CountFiles() {
    int count = 0;
    for (const auto& entry : std::filesystem::recursive_directory_iterator(folder_.path() / "artifacts")) {
      count += entry.is_regular_file() ? 1 : 0;
    }
    return count;
  }

  TemporaryFolder folder_;
  std::unique_ptr<ArtifactStore> store_;
};

}  // namespace gpipe::orchestrator

#endif  // GPIPE_TESTS_UNIT_ORCHESTRATOR_ARTIFACT_TESTING_H_
