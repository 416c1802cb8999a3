"""Whether an exported program computes what the model does, for gpipe.export."""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Callable, Iterator
from typing import Any

import torch
import torch.utils._pytree as pytree
from torch import nn

from gpipe._export.signature import path_name
from gpipe._export.weights import ExportError

# Largest difference allowed in fp32: of the tensor's maximum, and of the largest of all tensors of its kind. The second
# is for those that are zero but for rounding, such as the gradient of a bias before a batch norm.
OF_TENSOR, OF_ALL = 1e-5, 1e-6

Named = dict[str, torch.Tensor | None]


@contextlib.contextmanager
def values_kept(model: nn.Module, changing: bool = True) -> Iterator[None]:
    """Parameters and buffers are afterwards the same tensors; where they are changing, with the same values."""
    slots = [(table, name, tensor) for module in model.modules() for table in (module._parameters, module._buffers)
             for name, tensor in table.items()]
    values = {id(tensor): (tensor, tensor.detach().clone()) for _, _, tensor in slots
              if changing and tensor is not None and not tensor.is_meta}
    try:
        yield
    finally:
        for table, name, tensor in slots:
            table[name] = tensor
        with torch.no_grad():
            for tensor, value in values.values():
                if not torch.equal(tensor, value):  # Else autograd's count of writes stays, too.
                    tensor.copy_(value)


@dataclasses.dataclass
class _Run:
    outputs: Named
    gradients: Named
    buffers: Named
    functions: set[str]  # Custom autograd functions that the outputs came through.


def compare(model: nn.Module, program: torch.export.ExportedProgram, args: tuple, kwargs: dict[str, Any]) -> None:
    """One forward of both, and in training backward, with the same random numbers, from the same buffers."""
    parameters = {name: p for name, p in model.named_parameters() if p.requires_grad and model.training}
    with values_kept(model):
        expected = _run(model, model, list(parameters), args, kwargs)
    with values_kept(model):
        # The very tensors of the model, under the same names.
        found = _run(program.module(), model, list(parameters), args, kwargs)
    _refuse_if_different("outputs", _differing(found.outputs, expected.outputs))
    _refuse_gradients(model, _differing(found.gradients, expected.gradients), expected.functions)
    _refuse_if_different("buffers", _differing(found.buffers, expected.buffers))


def _run(call: Callable, model: nn.Module, names: list[str], args: tuple, kwargs: dict[str, Any]) -> _Run:
    torch.manual_seed(0)
    args, kwargs = pytree.tree_map_only(torch.Tensor, lambda t: t.detach().clone(), (args, kwargs))
    leaves = pytree.tree_flatten_with_path(call(*args, **kwargs))[0]
    outputs = {path_name(path) or "output": leaf for path, leaf in leaves if isinstance(leaf, torch.Tensor)}
    table = dict(call.named_parameters(remove_duplicate=False))
    gradients = _gradients(outputs, {name: table[name] for name in names if name in table})
    buffers = {name: buffer.detach().clone() for name, buffer in call.named_buffers(remove_duplicate=False)}
    functions = _custom_functions(outputs.values()) if call is model else set()
    return _Run({n: o.detach() for n, o in outputs.items()}, gradients, buffers, functions)


def _gradients(outputs: Named, parameters: dict[str, torch.Tensor]) -> Named:
    """Of random gradients of the outputs. Parameters' own .grad and hooks on it are left alone."""
    torch.manual_seed(1)
    weights = {n: torch.randn_like(o) for n, o in outputs.items() if o.is_floating_point() or o.is_complex()}
    roots = [name for name in weights if outputs[name].requires_grad]
    if not roots or not parameters:
        return dict.fromkeys(parameters)
    tensors, gradients = [outputs[name] for name in roots], [weights[name] for name in roots]
    return dict(zip(parameters, torch.autograd.grad(tensors, list(parameters.values()), gradients, allow_unused=True)))


def _differing(found: Named, expected: Named) -> list[str]:
    largest = max((_largest(t) for t in expected.values() if t is not None), default=0.0)
    return [name for name in expected if not _close(found.get(name), expected[name], largest)]


def _largest(tensor: torch.Tensor) -> float:
    finite = tensor[tensor.isfinite()] if tensor.dtype != torch.bool else tensor.byte()
    return finite.abs().max().item() if finite.numel() else 0.0


def _close(found: torch.Tensor | None, expected: torch.Tensor | None, largest_of_all: float) -> bool:
    if found is None or expected is None:  # No gradient is a gradient of zero.
        rest = found if expected is None else expected
        return rest is None or _largest(rest) <= OF_ALL * largest_of_all
    if found.shape != expected.shape or found.dtype != expected.dtype:
        return False
    limit = _coarseness(found.dtype) * (OF_TENSOR * _largest(expected) + OF_ALL * largest_of_all)
    same = (found == expected) | (found.isnan() & expected.isnan())
    wide = torch.float64 if not found.is_complex() else torch.complex128
    return bool((same | ((found.to(wide) - expected.to(wide)).abs() <= limit)).all())


def _coarseness(dtype: torch.dtype) -> float:
    """How much less exact than fp32."""
    return max(1.0, torch.finfo(dtype).eps / torch.finfo(torch.float32).eps) if dtype.is_floating_point else 1.0


def _refuse_if_different(kind: str, names: list[str]) -> None:
    if names:
        raise ExportError(f"the exported program does not compute what the model does: {kind} differ: {some(names)}")


def _refuse_gradients(model: nn.Module, names: list[str], functions: set[str]) -> None:
    if not names:
        return
    owners = [name.rpartition(".")[0] for name in names]
    places = [f"{name} in {describe(owner, model.get_submodule(owner))}" for name, owner in zip(names, owners)]
    reason = (f"; the model uses {', '.join(sorted(functions))}: torch.export loses the backward of a custom "
              "autograd.Function, and PyTorch's own derivative of its forward takes its place") if functions else ""
    raise ExportError(f"the exported program has other gradients than the model: {some(places)}{reason}")


def some(names: list[str], most: int = 10) -> str:
    return ", ".join(names[:most]) + (f" and {len(names) - most} more" if len(names) > most else "")


def _custom_functions(outputs: Any) -> set[str]:
    """Names of the custom autograd functions behind these tensors."""
    waiting, seen, names = [o.grad_fn for o in outputs if o.grad_fn], set(), set()
    while waiting:
        node = waiting.pop()
        seen.add(node)
        if isinstance(node, torch.autograd.function.BackwardCFunction):
            names.add(type(node).__name__.removesuffix("Backward"))
        waiting.extend(following for following, _ in node.next_functions if following and following not in seen)
    return names


def describe(name: str, module: nn.Module) -> str:
    return f"module '{name}' ({type(module).__name__})" if name else f"the model itself ({type(module).__name__})"
