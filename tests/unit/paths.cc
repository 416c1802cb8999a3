#include "tests/unit/paths.h"

namespace gpipe {

std::filesystem::path SourceFolder() { return GPIPE_SOURCE_DIR; }
std::filesystem::path BinFolder() { return GPIPE_BIN_DIR; }

}  // namespace gpipe
