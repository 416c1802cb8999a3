#ifndef GPIPE_COMMON_SAFETENSORS_INDEX_H_
#define GPIPE_COMMON_SAFETENSORS_INDEX_H_

#include <cstdint>
#include <filesystem>
#include <map>
#include <string>
#include <string_view>
#include <vector>

#include "absl/status/statusor.h"

namespace gpipe::safetensors {

// The index of a model in several safetensors files, its shards, as Hugging Face writes it: a JSON object whose
// `weight_map` tells for each tensor which file beside the index has it.

// By tensor, its shard.
using WeightMap = std::map<std::string, std::string>;

// Whether weights are given as an index: by the file's name, which ends with `.json`.
bool IsIndex(std::string_view path);

// Shards are named as the spec would name them, when it names the index as `path_in_spec`.
// NOT_FOUND: no such file. INVALID_ARGUMENT: not a good index, and why; also a shard outside of the index's folder.
absl::StatusOr<WeightMap> ReadIndex(const std::filesystem::path& file, const std::string& path_in_spec);
absl::StatusOr<WeightMap> ParseIndex(std::string_view text, const std::string& path_in_spec);

// The text of an index, `file_of` naming files beside it. `total_size` are the bytes of all tensors.
std::string BuildIndex(const WeightMap& file_of, uint64_t total_size);

// Each once.
std::vector<std::string> ShardsOf(const WeightMap& index);

}  // namespace gpipe::safetensors

#endif  // GPIPE_COMMON_SAFETENSORS_INDEX_H_
