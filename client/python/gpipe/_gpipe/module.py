"""torchgpipe's GPipe, whose partitions are on workers."""

from __future__ import annotations

import copy
import importlib
import importlib.util
import itertools
import weakref
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any, NoReturn

import torch
from torch import nn

from gpipe._client import Client
from gpipe._gpipe.arguments import Input
from gpipe._gpipe.engine import Engine
from gpipe._gpipe.launcher import Settings
from gpipe._gpipe.losses import Loss
from gpipe._gpipe.optimizers import steps_of
from gpipe._gpipe.partitions import Devices, check_input, check_module, check_options, cut, devices_of

DENIED = "denied to move parameters and buffers, because GPipe should manage device placement"


class GPipe(nn.Module):
    """A model whose partitions are on workers, one on each, which work on the micro-batches of a mini-batch at the same
    time. It is used as torchgpipe's is, and as the model itself:

        model = gpipe.GPipe(nn.Sequential(a, b, c, d), balance=[1, 1, 2], chunks=8)
        optimizer = torch.optim.AdamW(model.parameters())
        for input, target in loader:
            optimizer.zero_grad()
            loss_fn(model(input), target).backward()
            optimizer.step()

    Its parameters, buffers and gradients are tensors as ever: fetched from the workers when they are looked at, and
    sent there when they are written. Steps of SGD, Adam and AdamW are made on the workers, those of any other
    optimizer here. The workers are processes that are there with the first forward pass, and end with the model;
    close() ends them sooner. docs/python.md tells what is other than in torchgpipe.
    """

    balance: list[int]  # Layers of each partition,
    devices: list[torch.device]  # and where it is.
    chunks: int  # Micro-batches of a mini-batch.
    checkpoint: str  # Of which micro-batches activations are computed again in the backward pass.
    partitions: nn.ModuleList

    def __init__(self, module: nn.Sequential, balance: Iterable[int] | None = None, *, devices: Devices | None = None,
                 chunks: int = 1, checkpoint: str = "except_last", deferred_batch_norm: bool = False,
                 cluster: Client | str | None = None, loss: Callable[..., Any] | None = None):
        """`devices` are GPUs by number or name, or `cpu`: all GPUs by default, and CPU workers where there are none.
        `cluster` is a Client or an address; by default that of GPIPE_ORCHESTRATOR, and without it workers of this
        process's own on this machine. `deferred_batch_norm` updates running statistics once per mini-batch. `loss` is
        a module or function of outputs and targets for loss() to compute on the last worker; as it is now, and without
        parameters.
        """
        super().__init__()
        check_options(balance, int(chunks), str(checkpoint))
        check_module(module)
        _verify_skippables(module)
        self.balance = list(balance or ())
        self.chunks, self.checkpoint = int(chunks), str(checkpoint)
        self.partitions = cut(module, self.balance)
        self.devices = devices_of(devices, len(self.balance))
        self._device = self.devices[0].type if self.devices and not (devices is None and cluster) else "any"
        self._deferred_batch_norm, self._cluster = deferred_batch_norm, cluster
        self._loss = None if loss is None else Loss(loss)
        if any(not tensor.is_cpu for tensor in (*self.partitions.parameters(), *self.partitions.buffers())):
            self.partitions.cpu()  # The workers have their own.
        self._begin()

    def forward(self, input: Input) -> Input:
        """A tensor or a tuple of tensors, whose first dimension is the mini-batch. What comes of it in evaluation mode
        requires no gradients."""
        check_input(input)
        return self._engine.forward(input) if len(self) else input

    def loss(self, input: Input, target: Input) -> Any:
        """What `loss` is of the model's outputs and the target, which may be a tuple of tensors, too. In training the
        workers compute it: numbers come back and no outputs, and `loss.backward()` is the model's backward pass."""
        check_input(input)
        check_input(target)
        return self._engine.loss(input, target)

    def optimizer(self, make: Callable[..., torch.optim.Optimizer], **options: Any) -> torch.optim.Optimizer:
        """An optimizer of all parameters that require a gradient: `model.optimizer(torch.optim.AdamW, lr=1e-3)`.
        ValueError where workers cannot make its steps."""
        made = make([parameter for parameter in self.parameters() if parameter.requires_grad], **options)
        steps_of(made, self._engine.trained())
        return made

    def close(self) -> None:
        """Fetches parameters, buffers, gradients and the state of an optimizer, and ends the workers. The next forward
        pass has others."""
        try:
            self._engine.fetch()
        finally:
            self._engine.close()

    # --- As a sequential ---

    def __len__(self) -> int:
        return sum(len(partition) for partition in self._partitions())

    def __iter__(self) -> Iterator[nn.Module]:
        for partition in self._partitions():
            yield from partition

    def __getitem__(self, index: int) -> nn.Module:
        return list(self)[index]

    def _partitions(self) -> Iterator[nn.Sequential]:
        for partition in self.partitions:
            assert isinstance(partition, nn.Sequential)
            yield partition

    # --- As a module ---

    def load_state_dict(self, state_dict: Mapping[str, Any], strict: bool = True, assign: bool = False) -> Any:
        """As nn.Module has it. The workers have the values with the next pass."""
        own = itertools.chain(self.named_parameters(remove_duplicate=False), self.named_buffers(remove_duplicate=False))
        self._engine.mirror.forget_stale([tensor for name, tensor in own
                                          if _has_shape(state_dict.get(name), tensor.shape)])
        return super().load_state_dict(state_dict, strict, assign)

    def cuda(self, device: Any = None) -> NoReturn:
        """TypeError."""
        raise TypeError(DENIED)

    def cpu(self) -> NoReturn:
        """TypeError."""
        raise TypeError(DENIED)

    def to(self, *args: Any, **kwargs: Any) -> GPipe:
        """Casts; TypeError for a device."""
        if torch._C._nn._parse_to(*args, **kwargs)[0] is not None:
            raise TypeError(DENIED)
        super().to(*args, **kwargs)
        return self

    def _apply(self, function: Callable[[torch.Tensor], torch.Tensor], recurse: bool = True) -> GPipe:
        """Casts, also the weights of the loss."""
        if self._loss is not None and self._loss.module is not None:
            self._loss.module._apply(function)  # type: ignore[no-untyped-call]
        super()._apply(function, recurse)  # type: ignore[no-untyped-call]
        return self

    def __deepcopy__(self, memo: dict[int, Any]) -> GPipe:
        """With workers of its own, on the same cluster."""
        copied = memo[id(self)] = type(self).__new__(type(self))
        copied.__setstate__(copy.deepcopy(self.__getstate__(), memo) | {"_cluster": self._cluster})
        return copied

    def __getstate__(self) -> dict[str, Any]:
        """Without the workers, and without what belongs to this process."""
        return {name: value for name, value in self.__dict__.items() if name not in ("_engine", "_end")} | {
            "_cluster": None}

    def __setstate__(self, state: dict[str, Any]) -> None:
        super().__setstate__(state)  # type: ignore[no-untyped-call]
        self._begin()

    def _begin(self) -> None:
        self._engine = Engine(self.partitions, Settings(self.chunks, self.checkpoint, self._deferred_batch_norm,
                                                        self.devices, self._device, self._cluster, self._loss))
        self._end = weakref.finalize(self, self._engine.abandon)
        self._end.atexit = False  # The engine sees to that.


def _has_shape(value: Any, shape: torch.Size) -> bool:
    return isinstance(value, torch.Tensor) and value.shape == shape


def _verify_skippables(module: nn.Sequential) -> None:
    """TypeError where pairs of stash and pop do not match."""
    if importlib.util.find_spec("gpipe.skip"):
        importlib.import_module("gpipe.skip").verify_skippables(module)
