#ifndef GPIPE_COMMON_DATA_SAMPLE_TABLE_H_
#define GPIPE_COMMON_DATA_SAMPLE_TABLE_H_

#include <cstdint>
#include <filesystem>
#include <map>
#include <optional>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "gpipe/v1/job_spec.pb.h"
#include "gpipe/v1/plan.pb.h"

namespace gpipe::data {

// Where the samples of a data set lie: from the headers of its files, without a byte of their data. Pure functions over
// local files; any thread.

// A file as the spec names it, for messages, and where it lies here.
struct DataPath {
  std::string name;
  std::filesystem::path path;
  // Of a token file, Megatron's index beside it; empty: there is none.
  std::filesystem::path index = {};
};

// How one element is stored; kAsTyped is as the tensor's type says, the others are widened to int64.
enum class Storage { kAsTyped, kUint8, kUint16, kUint32, kInt32 };

// Samples that lie in one file.
struct Part {
  int file = 0;         // Which of the table's files.
  int64_t samples = 0;  // In this part.
  uint64_t begin = 0;   // Of the first sample, in bytes from the start of the file.
};

// One tensor of a data set, cut into samples.
struct SampleTensor {
  v1::DataType dtype = v1::DATA_TYPE_UNSPECIFIED;
  std::vector<int64_t> shape;  // Of one sample.
  int64_t samples = 0;         // Of all parts.
  bool single = false;         // A single number, which has no samples; it is read as if it were one.
  Storage storage = Storage::kAsTyped;
  uint64_t stride = 0;  // Bytes from one sample to the next in a file.
  std::vector<Part> parts;

  int64_t elements() const;      // Of one sample.
  int64_t stored_bytes() const;  // Of one sample.
  // Of all samples together: the tensor's in a file that has all of it.
  std::vector<int64_t> whole_shape() const;
  // Where the last sample of a part ends, in bytes from the start of its file.
  uint64_t EndOf(const Part& part) const;
};

// The files and tensors of a data set.
struct SampleTable {
  std::vector<DataPath> files;
  std::map<std::string, SampleTensor> tensors;
  bool tokens = false;  // Its tensors are windows of tokens.
  // What LargestTokenSeen says, where it was asked on another machine.
  std::optional<int64_t> largest_token = std::nullopt;
};

// Whether a tensor is not in parts in several files, which are one only when they are cut into samples. Of files on
// another machine their names say so. REQUIRES: the table has it.
bool IsInOneFile(const SampleTable& table, const std::string& name);

// Bytes of a stored element.
int64_t StoredSize(Storage storage, v1::DataType dtype);

// Safetensors files, and NumPy's by their name's ending. NOT_FOUND: no such file. INVALID_ARGUMENT: a file is not good,
// or its tensors are not those of the first one. Both name the file.
absl::StatusOr<SampleTable> OpenTensors(std::vector<DataPath> files);

// Files of tokens as windows. INVALID_ARGUMENT names the file: it is cut off, its type is not known or not the one that
// the spec gives.
absl::StatusOr<SampleTable> OpenTokens(std::vector<DataPath> files, const v1::Tokens& tokens);

// The largest token of some pieces of the files, spread over all of them: what is worth a look before a job begins,
// however large the files. 0 when there is none. INTERNAL: a file cannot be read. REQUIRES: table.tokens.
absl::StatusOr<int64_t> LargestTokenSeen(const SampleTable& table);

// `x.bin`: `x.idx`, where Megatron's index would be.
std::string IndexBeside(const std::string& path);

}  // namespace gpipe::data

#endif  // GPIPE_COMMON_DATA_SAMPLE_TABLE_H_
