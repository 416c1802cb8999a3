"""Saves a PyTorch model as a .pt2 file that a cluster can cut and train:

    gpipe_export(model, (images,), "model.pt2")

Needs nothing but torch. The model is not changed.
"""

from __future__ import annotations

import collections
import contextlib
import dataclasses
import inspect
import linecache
import os
import pathlib
import re
import sys
import traceback
import types
import unittest.mock
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

import torch
import torch.utils._pytree as pytree
from torch import nn
from torch.fx.experimental.symbolic_shapes import ShapeEnv

MAX_BATCH = 1 << 16
# Largest difference allowed in fp32: of the tensor's maximum, and of the largest of all tensors of its kind. The second
# is for those that are zero but for rounding, such as the gradient of a bias before a batch norm.
OF_TENSOR, OF_ALL = 1e-5, 1e-6
TORCH_FOLDER = os.path.dirname(torch.__file__) + os.sep

Named = dict[str, torch.Tensor | None]
Frame = tuple[types.FrameType, int]  # And its line.


class ExportError(RuntimeError):
    """The model cannot be exported, or what was exported does not compute the same. Says where."""


def gpipe_export(model: nn.Module, example_inputs: tuple | list | Mapping[str, Any], path: str | os.PathLike, *,
                 example_kwargs: Mapping[str, Any] | None = None,
                 dynamic_shapes: Any = None) -> torch.export.ExportedProgram:
    """Exports `model` in training mode, checks its outputs and gradients against the model, and saves it.

    `example_inputs` are the arguments of forward(): a tuple, or a dict by name. Dimension 0 of every tensor is the
    batch, of any size; `dynamic_shapes`, as torch.export.export takes it, says otherwise. Raises ExportError.
    """
    args, kwargs = _arguments(model, example_inputs, example_kwargs)
    with _left_as_it_is(model, args, kwargs):
        model.train()
        shapes = dynamic_shapes if dynamic_shapes is not None else _batch_shapes(model, args, kwargs)
        program = _export(model, args, kwargs, shapes)
        _refuse_foreign_operators(model, program)
        for batch in (_Inputs(args, kwargs), _Inputs(args, kwargs).doubled(program)):
            _check(model, program, batch)
    _save(model, program, pathlib.Path(path))
    return program


def _arguments(model: nn.Module, inputs: Any, named: Mapping[str, Any] | None) -> tuple[tuple, dict[str, Any]]:
    """Those by name come in the order of forward(), as a program has its inputs in the order given."""
    if isinstance(inputs, Mapping):
        args, given = (), {**inputs, **(named or {})}
    elif isinstance(inputs, (tuple, list)):
        args, given = tuple(inputs), dict(named or {})
    else:
        raise ExportError("example_inputs must be a tuple of the model's arguments, or a dict of them by name")
    signature = inspect.signature(model.forward)
    try:
        signature.bind(*args, **given)
    except TypeError as error:
        raise ExportError(f"the example inputs do not fit {type(model).__name__}.forward(): {error}") from None
    return args, {name: given[name] for name in signature.parameters if name in given} | given


# --- The batch ---

def _batch_shapes(model: nn.Module, args: tuple, kwargs: dict[str, Any]) -> dict[str, Any]:
    """Dimension 0 of each tensor is one and the same dynamic number."""
    arguments = dict(inspect.signature(model.forward).bind(*args, **kwargs).arguments)
    _check_batch(arguments)
    batch = torch.export.Dim("batch", min=1, max=MAX_BATCH)
    return pytree.tree_map(lambda leaf: {0: batch} if isinstance(leaf, torch.Tensor) else None, arguments)


def _check_batch(arguments: dict[str, Any]) -> None:
    sizes = {}
    for path, leaf in pytree.tree_flatten_with_path(arguments)[0]:
        if not isinstance(leaf, torch.Tensor):
            continue
        name = _path_name(path)
        if leaf.dim() == 0:
            raise ExportError(f"input '{name}' is a single number, and has no samples; make it a constant of the model")
        sizes[name] = leaf.shape[0]
    if not sizes:
        raise ExportError("no example input is a tensor")
    if len(set(sizes.values())) > 1:
        raise ExportError(f"dimension 0 of the example inputs is not one batch: {sizes}; if it is not meant to be, say "
                          "which dimensions are with dynamic_shapes")
    if min(sizes.values()) < 2:
        raise ExportError("the example batch must have at least 2 samples: torch.export takes a size of 1 for a "
                          "constant, and the batch size would be baked in")


def _path_name(path: tuple) -> str:
    return ".".join(str(getattr(key, "key", getattr(key, "idx", key))) for key in path)


@dataclasses.dataclass
class _Inputs:
    args: tuple
    kwargs: dict[str, Any]

    def doubled(self, program: torch.export.ExportedProgram) -> _Inputs:
        """Another batch size: twice the samples, where dimension 0 may have as many."""
        users = set(program.graph_signature.user_inputs)
        values = [n.meta.get("val") for n in program.graph.nodes if n.op == "placeholder" and n.name in users]
        leaves, spec = pytree.tree_flatten((self.args, self.kwargs))
        if len(values) != len(leaves):
            return self
        doubled = [torch.cat([leaf, leaf.roll(1, 0)]) if _may_double(program, value) else leaf
                   for leaf, value in zip(leaves, values)]
        return _Inputs(*pytree.tree_unflatten(doubled, spec))


def _may_double(program: torch.export.ExportedProgram, value: Any) -> bool:
    if not isinstance(value, torch.Tensor) or value.dim() == 0 or isinstance(value.shape[0], int):
        return False
    allowed = program.range_constraints.get(value.shape[0].node.expr)
    return allowed is None or 2 * value.shape[0].node.hint <= allowed.upper


# --- The export, and where it failed ---

def _export(model: nn.Module, args: tuple, kwargs: dict[str, Any], shapes: Any) -> torch.export.ExportedProgram:
    try:
        return torch.export.export(model, args, kwargs, dynamic_shapes=shapes, strict=False)
    except Exception as error:  # torch.export raises nearly every kind.
        where = _where(model, _frames(error))
        if str(error).startswith("Constraints violated"):
            where = _where_batch_is_fixed(model, args, kwargs, shapes) or where
        raise ExportError(f"torch.export cannot export {where}: {_first_line(error)}") from error


def _first_line(error: BaseException) -> str:
    """Of a list of violated constraints, the heading says nothing: the first of them."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    if len(lines) > 1 and lines[0].startswith("Constraints violated"):
        lines = [lines[0].split("!")[0] + ": " + lines[1].removeprefix("- ")]
    return f"{type(error).__name__}: {lines[0]}" if lines else type(error).__name__


def _where(model: nn.Module, frames: Iterable[Frame]) -> str:
    """The innermost module among the frames, and the innermost line of it that is not torch's own."""
    names = {id(module): name for name, module in model.named_modules()}
    module, line = None, None
    for frame, number in frames:
        owner = frame.f_locals.get("self")
        if id(owner) in names:
            module = owner
        if module is not None and not frame.f_code.co_filename.startswith((TORCH_FOLDER, "<")):
            line = _source_line(frame.f_code.co_filename, number)
    if module is None:
        return type(model).__name__
    return _describe(names[id(module)], module) + (f" at {line}" if line else "")


def _frames(error: BaseException) -> Iterator[Frame]:
    """From the outermost to the innermost, first those of what caused the error."""
    seen: list[BaseException] = []
    while error is not None and error not in seen:
        seen.append(error)
        error = error.__cause__ or error.__context__
    for error in reversed(seen):
        yield from traceback.walk_tb(error.__traceback__)


def _where_batch_is_fixed(model: nn.Module, args: tuple, kwargs: dict[str, Any], shapes: Any) -> str | None:
    """Where torch first concluded that a dynamic size has a certain value. It says so only while it exports."""
    places = []

    def note(environment: ShapeEnv, prefix: str, guard: Any, *rest: Any, **options: Any) -> Any:
        if str(guard).startswith("Eq("):
            places.append(_where(model, reversed(list(traceback.walk_stack(sys._getframe(1))))))
        return log_guard(environment, prefix, guard, *rest, **options)

    log_guard = ShapeEnv._log_guard
    with unittest.mock.patch.object(ShapeEnv, "_log_guard", note), contextlib.suppress(Exception):
        torch.export.export(model, args, kwargs, dynamic_shapes=shapes, strict=False)
    return next((place for place in places if " at " in place), None)


def _source_line(file: str, number: int) -> str:
    return f"{file}:{number}: {linecache.getline(file, number).strip()}"


def _describe(name: str, module: nn.Module) -> str:
    return f"module '{name}' ({type(module).__name__})" if name else f"the model itself ({type(module).__name__})"


def _refuse_foreign_operators(model: nn.Module, program: torch.export.ExportedProgram) -> None:
    """Workers have PyTorch's own operators, and none that a Python package registers."""
    for graph_module in program.graph_module.modules():
        for node in getattr(graph_module, "graph", torch.fx.Graph()).nodes:
            if _is_foreign(node):
                operator = node._pretty_print_target(node.target)
                raise ExportError(f"{_place_of(model, node)}: workers lack {operator}, which is not PyTorch's own")


def _is_foreign(node: torch.fx.Node) -> bool:
    if isinstance(node.target, torch._ops.OpOverload):
        return node.target.namespace not in ("aten", "prims")
    # torch.vmap and the like leave calls of Python functions behind.
    return node.op == "call_function" and str(getattr(node.target, "__module__", "")).startswith("torch._functorch")


def _place_of(model: nn.Module, node: torch.fx.Node) -> str:
    stack = list((node.meta.get("nn_module_stack") or {}).values())
    name = stack[-1][0].removeprefix("L['self'].") if stack else ""
    try:
        place = _describe(name, model.get_submodule(name))
    except AttributeError:
        place = f"module '{name}'"
    line = _line_of(node.meta.get("stack_trace") or "")
    return f"{place} at {line}" if line else place


def _line_of(stack_trace: str) -> str:
    """The innermost line outside torch."""
    found = re.findall(r'File "(.*)", line (\d+), in .*\n\s*(.*)', stack_trace)
    places = [f"{file}:{line}: {text}" for file, line, text in found if not file.startswith(TORCH_FOLDER)]
    return places[-1] if places else ""


def _save(model: nn.Module, program: torch.export.ExportedProgram, path: pathlib.Path) -> None:
    partial = path.with_name(f"{path.stem}.part.pt2")
    try:
        _name_namedtuples(program.call_spec.out_spec)
        torch.export.save(program, partial)
        os.replace(partial, path)
    except OSError:
        raise
    except Exception as error:
        raise ExportError(f"torch.export cannot save {type(model).__name__}: {_first_line(error)}") from error
    finally:
        partial.unlink(missing_ok=True)


def _name_namedtuples(spec: pytree.TreeSpec) -> None:
    """torch.export.save wants a name for each kind that the model returns. Workers do not read it."""
    if spec.type is collections.namedtuple:
        with contextlib.suppress(ValueError):  # It has one already.
            name = f"{spec.context.__module__}.{spec.context.__qualname__}"
            pytree._register_namedtuple(spec.context, serialized_type_name=name)
    for child in spec.children():
        _name_namedtuples(child)


# --- Leaving the model alone ---

@contextlib.contextmanager
def _left_as_it_is(model: nn.Module, args: tuple, kwargs: dict[str, Any]) -> Iterator[None]:
    """Modes, values of parameters and buffers, and random numbers are afterwards what they were."""
    modes = {module: module.training for module in model.modules()}
    try:
        with torch.random.fork_rng(_cuda_devices(model, args, kwargs)), _values_kept(model), torch.enable_grad():
            yield
    finally:
        for module, mode in modes.items():
            module.training = mode


def _cuda_devices(model: nn.Module, args: tuple, kwargs: dict[str, Any]) -> list[int]:
    tensors = [*model.parameters(), *model.buffers(), *pytree.tree_leaves((args, kwargs))]
    return sorted({t.device.index for t in tensors if isinstance(t, torch.Tensor) and t.device.type == "cuda"})


@contextlib.contextmanager
def _values_kept(model: nn.Module) -> Iterator[None]:
    slots = [(table, name, tensor) for module in model.modules() for table in (module._parameters, module._buffers)
             for name, tensor in table.items()]
    values = {id(tensor): (tensor, tensor.detach().clone()) for _, _, tensor in slots if tensor is not None}
    try:
        yield
    finally:
        for table, name, tensor in slots:
            table[name] = tensor
        with torch.no_grad():
            for tensor, value in values.values():
                if not torch.equal(tensor, value):  # Else autograd's count of writes stays, too.
                    tensor.copy_(value)


# --- The check ---

@dataclasses.dataclass
class _Run:
    outputs: Named
    gradients: Named
    buffers: Named
    functions: set[str]  # Custom autograd functions that the outputs came through.


def _check(model: nn.Module, program: torch.export.ExportedProgram, inputs: _Inputs) -> None:
    """One forward and backward of both, with the same random numbers, from the same buffers."""
    parameters = {name: p for name, p in model.named_parameters() if p.requires_grad}
    with _values_kept(model):
        expected = _run(model, model, list(parameters), inputs)
    with _values_kept(model):
        # The very tensors of the model, under the same names.
        found = _run(program.module(), model, list(parameters), inputs)
    _refuse_if_different("outputs", _differing(found.outputs, expected.outputs))
    _refuse_gradients(model, _differing(found.gradients, expected.gradients), expected.functions)
    _refuse_if_different("buffers", _differing(found.buffers, expected.buffers))


def _run(call: Callable, model: nn.Module, names: list[str], inputs: _Inputs) -> _Run:
    torch.manual_seed(0)
    args, kwargs = pytree.tree_map_only(torch.Tensor, lambda t: t.detach().clone(), (inputs.args, inputs.kwargs))
    leaves = pytree.tree_flatten_with_path(call(*args, **kwargs))[0]
    outputs = {_path_name(path) or "output": leaf for path, leaf in leaves if isinstance(leaf, torch.Tensor)}
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
        raise ExportError(f"the exported program does not compute what the model does: {kind} differ: {_some(names)}")


def _refuse_gradients(model: nn.Module, names: list[str], functions: set[str]) -> None:
    if not names:
        return
    owners = [name.rpartition(".")[0] for name in names]
    places = [f"{name} in {_describe(owner, model.get_submodule(owner))}" for name, owner in zip(names, owners)]
    reason = (f"; the model uses {', '.join(sorted(functions))}: torch.export loses the backward of a custom "
              "autograd.Function, and PyTorch's own derivative of its forward takes its place") if functions else ""
    raise ExportError(f"the exported program has other gradients than the model: {_some(places)}{reason}")


def _some(names: list[str], most: int = 10) -> str:
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
