"""How many layers of an nn.Sequential each stage should have, with the names of torchgpipe.balance (docs/python.md):

    balance = balance_by_time(4, model, torch.rand(128, 3, 224, 224))

Layers are measured one at a time, on copies: a device needs room for one layer, and the model, its gradients and
torch's random number generators are left as they are. The cut is the best that there is for what was measured.
"""

from __future__ import annotations

import torch
from torch import nn

from gpipe.balance._partition import check_partitions, partition
from gpipe.balance._profile import Device, TensorOrTensors, profile_sizes, profile_times

__all__ = ["balance_by_size", "balance_by_time"]


def balance_by_time(partitions: int, module: nn.Sequential, sample: TensorOrTensors, *, timeout: float = 1.0,
                    device: Device | None = None) -> list[int]:
    """Balances the time of forward and backward, each layer's median over as many passes as begin within `timeout`
    seconds after a first one, which warms up. `sample` is a whole mini-batch, or as much of it as is worth measuring.
    `device` is "cuda" where there is one, and else "cpu".

    ValueError where a parameter has a gradient: the model is in the middle of something.
    """
    check_partitions(len(module), partitions)
    return partition(profile_times(module, sample, timeout, _device(device)), partitions)


def balance_by_size(partitions: int, module: nn.Sequential, input: TensorOrTensors, *, chunks: int = 1,
                    param_scale: float = 2.0, device: Device | None = None) -> list[int]:
    """Balances memory: the bytes that a layer's forward leaves for the backward of one micro-batch, where `input` is a
    mini-batch of `chunks` of them, and `param_scale` times its parameters.

    `param_scale` counts a parameter, its gradient, and what the optimizer keeps of it: 2 to 3 for SGD, 3 for Adagrad, 4
    for Adadelta, 4 to 5 for Adam, 3 to 5 for RMSprop.
    """
    check_partitions(len(module), partitions)
    return partition(profile_sizes(module, input, chunks, param_scale, _device(device)), partitions)


def _device(device: Device | None) -> torch.device:
    return torch.device(device if device is not None else "cuda" if torch.cuda.is_available() else "cpu")
