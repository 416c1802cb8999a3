"""The memory that operators take on a device: what torch.cuda.memory_allocated() grows by on CUDA, but for what
libraries take there once for themselves."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import torch
import torch.utils._pytree as pytree
from torch.multiprocessing.reductions import StorageWeakRef
from torch.utils._python_dispatch import TorchDispatchMode

BLOCK = 512  # Bytes. CUDA's allocator has no smaller ones.

# Keeps no memory, but its address, by which two are compared: it is not another storage's before this is gone.
_weak: Callable[[torch.UntypedStorage], Any] = StorageWeakRef


class Allocations(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Notes storages that come out of operators within it. Those that have gone into one before were not made by it."""

    def __init__(self, device: torch.device) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self._device = device
        self._bytes: dict[Any, int] = {}

    def __torch_dispatch__(self, func: Any, types: Sequence[type], args: Sequence[Any] = (),
                           kwargs: Mapping[str, Any] | None = None) -> Any:
        for storage in _storages((args, kwargs)):
            self._bytes.setdefault(_weak(storage), 0)
        result = func(*args, **(kwargs or {}))
        for storage in _storages(result):
            self._bytes.setdefault(_weak(storage), self._taken_by(storage))
        return result

    def alive(self) -> int:
        """Bytes that something still holds."""
        return sum([size for storage, size in self._bytes.items() if not storage.expired()])

    def _taken_by(self, storage: torch.UntypedStorage) -> int:
        """A kernel for CUDA may return a number in the host's memory."""
        return -(-storage.nbytes() // BLOCK) * BLOCK if storage.device.type == self._device.type else 0


def _storages(values: Any) -> Iterator[torch.UntypedStorage]:
    for leaf in pytree.tree_leaves(values):
        if isinstance(leaf, torch.UntypedStorage):  # As cuDNN's layers take their parameters.
            yield leaf
        elif isinstance(leaf, torch.Tensor) and leaf.layout is torch.strided:
            yield leaf.untyped_storage()
