"""How a model is cut, in torchgpipe's words: its children, a balance, and devices."""

from __future__ import annotations

import collections
from collections.abc import Iterable, Sequence
from typing import Any

import torch
from torch import nn

CHECKPOINT_MODES = ("always", "except_last", "never")
Devices = Iterable[int | str | torch.device]

RECOMMENDATION = """{message}

If your model is still under development, its optimal balance would change frequently. In this case, we highly \
recommend 'gpipe.balance' for naive automatic balancing:

    from gpipe import GPipe
    from gpipe.balance import balance_by_time

    partitions = torch.cuda.device_count()
    sample = torch.empty(...)
    balance = balance_by_time(partitions, model, sample)

    model = GPipe(model, balance, ...)
"""


def check_options(balance: Iterable[int] | None, chunks: int, checkpoint: str) -> None:
    """What is wrong with them by themselves."""
    if balance is None:
        raise ValueError(RECOMMENDATION.format(message="balance is required"))
    if chunks <= 0:
        raise ValueError("number of chunks must be positive integer")
    if checkpoint not in CHECKPOINT_MODES:
        raise ValueError("checkpoint is not one of 'always', 'except_last', or 'never'")


def check_module(module: Any) -> None:
    """Whether it can be partitioned at all."""
    if not isinstance(module, nn.Sequential):
        raise TypeError("module must be nn.Sequential to be partitioned")
    if len(list(module.named_children())) != len(module):
        raise ValueError("module with duplicate children is not supported")
    if len(list(module.parameters())) != sum(len(list(child.parameters())) for child in module):
        raise ValueError("module with duplicate parameters in distinct children is not supported")


def cut(module: nn.Sequential, balance: Sequence[int]) -> nn.ModuleList:
    """The partitions. Children keep their names."""
    if len(module) != sum(balance):
        raise ValueError(RECOMMENDATION.format(
            message=f"module and sum of balance have different length (module: {len(module)}, sum of balance: "
                    f"{sum(balance)})"))
    if any(count <= 0 for count in balance):
        raise ValueError(RECOMMENDATION.format(
            message=f"all balance numbers must be positive integer (balance: {list(balance)})"))
    children = iter(module.named_children())
    return nn.ModuleList(nn.Sequential(collections.OrderedDict(next(children) for _ in range(count)))
                         for count in balance)


def devices_of(devices: Devices | None, partitions: int) -> list[torch.device]:
    """One for each partition. Numbers are GPUs; on a machine without any they are CPU workers."""
    gpus = torch.cuda.device_count()
    if devices is None:
        devices = range(gpus) if gpus else ["cpu"] * partitions
    found = [torch.device(f"cuda:{device}" if gpus else "cpu") if isinstance(device, int) else torch.device(device)
             for device in devices]
    if len(found) < partitions:
        raise IndexError("too few devices to hold given partitions "
                         f"(devices: {len(found)}, partitions: {partitions})")
    if len({device.type for device in found[:partitions]}) > 1:
        raise ValueError("all partitions must be on the same kind of device")
    return found[:partitions]


def check_input(value: Any) -> None:
    """A tensor, or a tuple of tensors."""
    if isinstance(value, tuple):
        for element in value:
            check_input(element)
    elif not isinstance(value, torch.Tensor):
        raise TypeError(f"expected Tensor, but got {type(value)}")
