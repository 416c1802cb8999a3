#ifndef GPIPE_TESTS_UNIT_WORKER_GOLDEN_ARCHIVES_H_
#define GPIPE_TESTS_UNIT_WORKER_GOLDEN_ARCHIVES_H_

#include <memory>
#include <string>
#include <vector>

#include "worker/data/tensor_file.h"
#include "worker/exported/archive.h"

namespace gpipe::worker {

// The exported programs of tests/golden/exported (make_exported.py), by name, and PyTorch's own numbers for them. What
// cannot be opened is null, and the test has failed.
std::vector<std::string> GoldenArchives();
std::unique_ptr<Archive> OpenGoldenArchive(const std::string& name);
std::unique_ptr<TensorFile> OpenGoldenTensors(const std::string& name);

}  // namespace gpipe::worker

#endif  // GPIPE_TESTS_UNIT_WORKER_GOLDEN_ARCHIVES_H_
