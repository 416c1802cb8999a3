#ifndef GPIPE_WORKER_EXPORTED_INPUT_LAYOUT_H_
#define GPIPE_WORKER_EXPORTED_INPUT_LAYOUT_H_

#include <map>
#include <string>

#include "common/exported/program.h"
#include "worker/model/tensor_layout.h"

namespace gpipe::worker {

// The layouts of the inputs that the program was exported with, by value, where they are not those of fresh tensors,
// as data is. Whatever the program does with an input may need them.
std::map<std::string, DimensionOrder> InputLayouts(const exported::Program& program);

}  // namespace gpipe::worker

#endif  // GPIPE_WORKER_EXPORTED_INPUT_LAYOUT_H_
