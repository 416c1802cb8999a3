#ifndef GPIPE_CLIENT_LOCAL_MACHINE_H_
#define GPIPE_CLIENT_LOCAL_MACHINE_H_

#include <cstdint>

namespace gpipe::client {

// Cores this process may use.
int CountCores();

// GPUs this process may use: those of CUDA_VISIBLE_DEVICES when it is set, else those nvidia-smi lists; 0 without it.
int CountGpus();

// Bytes that programs may still use without others having to give way.
int64_t FreeMemory();

}  // namespace gpipe::client

#endif  // GPIPE_CLIENT_LOCAL_MACHINE_H_
