#ifndef GPIPE_CLIENT_API_DATA_PATHS_H_
#define GPIPE_CLIENT_API_DATA_PATHS_H_

#include <filesystem>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "common/spec/reader.h"
#include "common/spec/validator.h"

namespace gpipe::client {

// Where a file that the spec names lies: paths are relative to the spec file.
std::filesystem::path PathOf(const spec::SpecFile& file, const std::string& path);

// Puts the files that they match in the place of the patterns of data files; those of shared folders stay, for a worker
// to expand. INVALID_ARGUMENT, by field, where nothing matches.
absl::Status ExpandPatterns(spec::SpecFile& file);

// Adds the indices of Megatron's that lie beside the spec's files of tokens.
void AddTokenIndices(const spec::SpecFile& file, std::vector<spec::NamedFile>& files);

}  // namespace gpipe::client

#endif  // GPIPE_CLIENT_API_DATA_PATHS_H_
