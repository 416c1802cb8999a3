#ifndef GPIPE_TESTS_UNIT_PATHS_H_
#define GPIPE_TESTS_UNIT_PATHS_H_

#include <filesystem>

namespace gpipe {

// The repository that the tests were built from, and the folder of the programs under test. They are told by functions
// of one unit, so that a compiled test does not depend on where the repository lies: the compiler cache serves it to
// every clone.
std::filesystem::path SourceFolder();
std::filesystem::path BinFolder();

}  // namespace gpipe

#endif  // GPIPE_TESTS_UNIT_PATHS_H_
