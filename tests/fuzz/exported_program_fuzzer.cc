// Any bytes as the program of an exported model, and as a table of its tensors: an answer, whatever they are.

#include <cstddef>
#include <cstdint>
#include <string_view>

#include "common/exported/program.h"
#include "common/exported/tensor_table.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  const std::string_view text(reinterpret_cast<const char*>(data), size);
  gpipe::exported::ParseProgram(text).IgnoreError();
  gpipe::exported::ParseTensorTable(text).IgnoreError();
  return 0;
}
