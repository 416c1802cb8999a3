"""What each layer of a Sequential costs, measured on a copy of it, alone on the device and in training mode."""

from __future__ import annotations

import contextlib
import copy
import math
import statistics
import time
from collections.abc import Callable
from typing import Any, TypeAlias

import torch
from torch import Tensor, nn

from gpipe.balance._allocations import Allocations
from gpipe.skip._context import SkipContext, skip_context

Device: TypeAlias = torch.device | int | str
TensorOrTensors: TypeAlias = Tensor | tuple[Tensor, ...]
Measure: TypeAlias = Callable[["LayerAlone"], int]


def profile_times(module: nn.Sequential, sample: TensorOrTensors, timeout: float, device: torch.device) -> list[int]:
    """Nanoseconds of forward and backward."""
    if any(parameter.grad is not None for parameter in module.parameters()):
        raise ValueError("some parameter already has gradient")
    with _generators_kept(device):
        measure_layers(module, sample, device, _nanoseconds)  # Allocators and libraries set themselves up.
        passes: list[list[int]] = []
        begin = time.monotonic()
        while not passes or time.monotonic() - begin < timeout:
            passes.append(measure_layers(module, sample, device, _nanoseconds))
    return [statistics.median_low(times) for times in zip(*passes)]


def profile_sizes(module: nn.Sequential, input: TensorOrTensors, chunks: int, param_scale: float,
                  device: torch.device) -> list[int]:
    """Bytes of the largest micro-batch, and of parameters."""
    if chunks < 1:
        raise ValueError("number of chunks must be positive integer")
    samples = math.ceil(_tensors(input)[0].shape[0] / chunks)
    micro_batch = _mapped(input, lambda tensor: tensor[:samples])

    def size(layer: LayerAlone) -> int:
        parameters = sum(parameter.nbytes for parameter in layer.module.parameters())
        return int(_bytes_left(layer) + parameters * param_scale)

    with _generators_kept(device):
        return measure_layers(module, micro_batch, device, size)


def measure_layers(module: nn.Sequential, sample: TensorOrTensors, device: torch.device, measure: Measure) -> list[int]:
    """Each layer gets what those before it have made of the sample."""
    costs = []
    with skip_context() as skips, torch.enable_grad():
        values = _mapped(sample, lambda tensor: _without_history(tensor.to(device)))
        for layer in module:
            cost, values = _measure_layer(LayerAlone(layer, device, values, skips), measure)
            costs.append(cost)
    return costs


def _measure_layer(layer: LayerAlone, measure: Measure) -> tuple[int, TensorOrTensors]:
    """Leaves no memory of the layer but what it hands over."""
    return measure(layer), layer.hand_over()


class LayerAlone:
    """A copy of one layer, and values for it without a history, like those that come from another stage."""

    def __init__(self, layer: nn.Module, device: torch.device, values: TensorOrTensors, skips: SkipContext):
        self.module, self.device = copy.deepcopy(layer).to(device).train(), device
        self._values, self._skips, self._stashed_before = values, skips, set(skips.values)

    def forward(self) -> list[Tensor]:
        """Returns all that later layers may use: outputs, and what is stashed."""
        self._values = self.module(self._values)
        stashed = (self._skips.values[key] for key in self._new_skips())
        return [*_tensors(self._values), *(tensor for tensor in stashed if tensor is not None)]

    def hand_over(self) -> TensorOrTensors:
        """Takes the history off all of it, and returns the outputs."""
        for key in self._new_skips():
            tensor = self._skips.values[key]
            self._skips.values[key] = None if tensor is None else _without_history(tensor)
        return _mapped(self._values, _without_history)

    def _new_skips(self) -> list[Any]:
        return [key for key in self._skips.values if key not in self._stashed_before]


def _nanoseconds(layer: LayerAlone) -> int:
    _synchronize(layer.device)
    begin = time.perf_counter_ns()
    made = [tensor for tensor in layer.forward() if tensor.requires_grad]
    if made:
        torch.autograd.backward(made, [tensor.detach() for tensor in made])
    _synchronize(layer.device)
    return time.perf_counter_ns() - begin


def _bytes_left(layer: LayerAlone) -> int:
    allocations = Allocations(layer.device)
    with allocations:
        layer.forward()
    return allocations.alive()


def _without_history(tensor: Tensor) -> Tensor:
    """No leaf either, so that a layer may write to it in place."""
    return tensor.detach().requires_grad_(tensor.requires_grad).clone()


def _tensors(values: TensorOrTensors) -> tuple[Tensor, ...]:
    tensors = values if isinstance(values, tuple) else (values,)
    for tensor in tensors:
        if not isinstance(tensor, Tensor):
            raise TypeError(f"expected Tensor, but got {type(tensor)}")
    return tensors


def _mapped(values: TensorOrTensors, function: Callable[[Tensor], Tensor]) -> TensorOrTensors:
    tensors = tuple(function(tensor) for tensor in _tensors(values))
    return tensors if isinstance(values, tuple) else tensors[0]


def _generators_kept(device: torch.device) -> contextlib.AbstractContextManager[None]:
    """What is random in the layers leaves the state of torch's generators as it was."""
    return torch.random.fork_rng(devices=[device] if device.type == "cuda" else [])


def _synchronize(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)
