"""What a pass is given: inputs of the model and, where workers compute the loss, its target."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator

import torch

Input = torch.Tensor | tuple[torch.Tensor, ...]


@dataclasses.dataclass(frozen=True)
class Like:
    """What is like an input, but for its values and the number of samples."""

    tensors: tuple[tuple[torch.dtype, torch.Size], ...]
    is_tuple: bool

    @staticmethod
    def of(input: Input) -> Like:
        """REQUIRES: samples."""
        return Like(tuple((tensor.dtype, tensor.shape[1:]) for tensor in _tensors(input)), isinstance(input, tuple))

    def zeros(self, samples: int) -> Input:
        """One of it."""
        tensors = tuple(torch.zeros(samples, *shape, dtype=dtype) for dtype, shape in self.tensors)
        return tensors if self.is_tuple else tensors[0]


@dataclasses.dataclass(frozen=True)
class Arguments:
    """Of a whole mini-batch."""

    input: Input
    target: Input | None = None

    def __iter__(self) -> Iterator[Input]:
        """As a program takes them."""
        yield self.input
        if self.target is not None:
            yield self.target

    @property
    def tensors(self) -> tuple[torch.Tensor, ...]:
        """All of them, in their order."""
        return tuple(tensor for argument in self for tensor in _tensors(argument))

    def map(self, change: Callable[[torch.Tensor], torch.Tensor]) -> Arguments:
        """With other tensors."""
        return Arguments(*(tuple(map(change, argument)) if isinstance(argument, tuple) else change(argument)
                           for argument in self))

    def check(self) -> None:
        """ValueError where they are no mini-batch."""
        for argument in self:
            for tensor in _tensors(argument):
                if isinstance(tensor, tuple):
                    raise TypeError("expected Tensor, but got <class 'tuple'>: tuples cannot be nested")
                if tensor.dim() == 0:
                    what = "input" if argument is self.input else "target"
                    raise ValueError(f"the {what} is a single number, and has no samples")
        self._check_samples()

    def _check_samples(self) -> None:
        if not _tensors(self.input) or (self.target is not None and not _tensors(self.target)):
            raise ValueError(f"the {'target' if _tensors(self.input) else 'input'} has no tensor")
        counts = [tensor.shape[0] for tensor in self.tensors]
        if len(set(counts)) > 1 or counts[0] == 0:
            what = "inputs" if self.target is None else "inputs and targets"
            raise ValueError(f"the {what} must have as many samples each, and at least one: their first dimensions are "
                             f"{counts}")


def _tensors(input: Input) -> tuple[torch.Tensor, ...]:
    return input if isinstance(input, tuple) else (input,)
