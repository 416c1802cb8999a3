#ifndef GPIPE_CLIENT_LOCAL_MACHINE_H_
#define GPIPE_CLIENT_LOCAL_MACHINE_H_

namespace gpipe::client {

// Cores this process may use.
int CountCores();

// GPUs this process may use: those of CUDA_VISIBLE_DEVICES when it is set, else those nvidia-smi lists; 0 without it.
int CountGpus();

}  // namespace gpipe::client

#endif  // GPIPE_CLIENT_LOCAL_MACHINE_H_
