#ifndef GPIPE_COMMON_SAFETENSORS_SHARD_NAMES_H_
#define GPIPE_COMMON_SAFETENSORS_SHARD_NAMES_H_

#include <cstdint>
#include <string>
#include <string_view>

namespace gpipe::safetensors {

// How the files of one set of tensors are named, as Hugging Face does it. Its stem is `model`, say: one file is
// `model.safetensors`; several are the shards `model-00001-of-00003.safetensors` and so on, and have the index
// `model.safetensors.index.json`.

// The most bytes of one file, where nobody says another number: as Hugging Face's save_pretrained() has it.
inline constexpr int64_t kMaxShardBytes = 5'000'000'000;

std::string WholeName(std::string_view stem);
std::string IndexName(std::string_view stem);
// REQUIRES: 1 <= number <= count.
std::string ShardName(std::string_view stem, size_t number, size_t count);

// The one file, or one of several.
bool HoldsTensorsOf(std::string_view stem, std::string_view name);
// Or their index.
bool BelongsTo(std::string_view stem, std::string_view name);

}  // namespace gpipe::safetensors

#endif  // GPIPE_COMMON_SAFETENSORS_SHARD_NAMES_H_
