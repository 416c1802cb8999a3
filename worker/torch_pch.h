// The precompiled header of every unit that includes LibTorch (cmake/GpipeTargets.cmake): ATen and autograd, not
// torch/torch.h, which takes twice as long.
#include <ATen/ATen.h>
#include <ATen/core/Generator.h>
#include <c10/util/Exception.h>
#include <torch/csrc/autograd/autograd.h>
#include <torch/csrc/autograd/grad_mode.h>
#include <torch/csrc/autograd/variable.h>
