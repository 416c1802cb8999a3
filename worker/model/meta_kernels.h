#ifndef GPIPE_WORKER_MODEL_META_KERNELS_H_
#define GPIPE_WORKER_MODEL_META_KERNELS_H_

namespace gpipe::worker {

// Some common operators have their kernels for meta tensors, which compute shapes only, in PyTorch's Python part, where
// a program without Python does not find them. After this, which costs nothing when it is repeated, LibTorch has them.
void RegisterMetaKernels();

}  // namespace gpipe::worker

#endif  // GPIPE_WORKER_MODEL_META_KERNELS_H_
