"""Saves a PyTorch model as a .pt2 file that a cluster can cut and train:

    gpipe.export(model, (images,), "model.pt2")

A model whose weights are in files of their own needs no memory for them:

    with gpipe.empty_weights():
        model = AutoModelForCausalLM.from_config(config)
    gpipe.export(model, inputs, "model.pt2", weights="folder/of/safetensors")

Needs nothing but torch, and the files beside it. The model is not changed.
"""

from __future__ import annotations

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
from collections.abc import Collection, Iterable, Iterator, Mapping
from typing import Any

import torch
import torch.utils._pytree as pytree
from torch import nn
from torch.fx.experimental.symbolic_shapes import ShapeEnv

from gpipe._export import modes
from gpipe._export import weights as weight_files
from gpipe._export.check import compare, describe, some, values_kept
from gpipe._export.signature import in_plain_terms, inputs_of, path_name, refuse_unused
from gpipe._export.weights import ExportError

MAX_BATCH = 1 << 16
TORCH_FOLDER = os.path.dirname(torch.__file__) + os.sep
OWN_FOLDER = os.path.dirname(os.path.abspath(__file__)) + os.sep

COMPARED = "outputs and gradients were compared before"
NOT_COMPARED = ("its outputs have the model's shapes and types, but no values were compared; give a small copy of the "
                "model to compare with check=")

Frame = tuple[types.FrameType, int]  # And its line.


def export(model: nn.Module, example_inputs: tuple[Any, ...] | list[Any] | Mapping[str, Any],
           path: str | os.PathLike[str], *, example_kwargs: Mapping[str, Any] | None = None, dynamic_shapes: Any = None,
           unbatched: Collection[str] = (), weights: bool | str | os.PathLike[str] = True, weights_prefix: str = "",
           check: tuple[nn.Module, Any] | None = None) -> torch.export.ExportedProgram:
    """Exports `model` in training mode, checks its outputs and gradients against the model, and saves it. What is in
    eval() in a model that is in training stays so: a frozen batch norm, a dropout that is off. Where the model does
    something else in eval() than workers make of that, its evaluation program is saved with it, and is what `infer` and
    `evaluate` run.

    `example_inputs` are the arguments of forward(): a tuple, or a dict by name, also of what forward() has from its
    **kwargs, as wrappers do. Dimension 0 of every tensor is the batch, of any size, but of those named in `unbatched`,
    which have no samples (an adjacency matrix, a table; a job names them, too); `dynamic_shapes`, as torch.export.export
    takes it, says otherwise; what is given by name has its name there. The program's outputs are in dicts by their keys
    and fields (signature.py). Raises ExportError.

    Parameters and buffers on the meta device have their values elsewhere (`model.weights` of a job). With `weights`
    False that holds for all; with a file or folder of safetensors, too, and it must have them, under the model's names
    without `weights_prefix`. What has no values cannot be compared, and what is large takes long; `check` is a small
    copy of the model, of the same class, and inputs for it, which is exported and compared instead.
    """
    args, kwargs = _arguments(model, example_inputs, example_kwargs)
    elsewhere = weight_files.left_out(model, weights)
    if not isinstance(weights, bool):
        weight_files.check_files(model, weights, weights_prefix)
    with _left_as_it_is(model, args, kwargs, compared=check is None):
        with weight_files.as_fakes(model) as mode:
            exporter = _Export(model, args, kwargs, dynamic_shapes, unbatched, compared=check is None, mode=mode)
            program = exporter.training()
            evaluation = exporter.evaluation(program)
        said = NOT_COMPARED if mode else COMPARED
        if check:
            said = _compare_copy(model, program, check, dynamic_shapes, unbatched)
    refuse_unused(model, args, kwargs, [p for p in (program, evaluation.program) if p is not None])
    _save(model, program, evaluation, pathlib.Path(path), elsewhere)
    if evaluation.missing:
        print(f"{path}: for training only, without `infer` and `evaluate`, as there is no program for evaluation: "
              f"{evaluation.missing}")
    if elsewhere:
        print(f"{path}: exported without the values of {len(elsewhere)} of {len(model.state_dict())} tensors; {said}")
    return program


@dataclasses.dataclass
class _Export:
    """Of one model; what is not compared is checked for its shapes, where some of it has no values."""

    model: nn.Module
    args: tuple
    kwargs: dict[str, Any]
    dynamic_shapes: Any
    unbatched: Collection[str] = ()
    compared: bool = True
    mode: Any = None

    def training(self) -> torch.export.ExportedProgram:
        """A model that is in eval() itself is meant for everything."""
        if not self.model.training:
            self.model.train()
        program = self._exported()
        self._check(program)
        return program

    def evaluation(self, training: torch.export.ExportedProgram) -> modes.Evaluation:
        """Leaves the model in eval(). That a model can only be trained is no error."""
        self.model.eval()
        try:
            program = self._exported()
            if modes.is_turned_off(program, training):
                return modes.Evaluation()
            self._check(program)
        except ExportError as error:
            return modes.Evaluation(missing=f"in eval(): {error}")
        return modes.Evaluation(program)

    def _exported(self) -> torch.export.ExportedProgram:
        shapes = self.dynamic_shapes
        if shapes is None:
            shapes = _batch_shapes(self.model, self.args, self.kwargs, self.unbatched)
        program = _export(self.model, self.args, self.kwargs, shapes)
        _refuse_foreign_operators(self.model, program)
        return program

    def _check(self, program: torch.export.ExportedProgram) -> None:
        for batch in (_Inputs(self.args, self.kwargs), _Inputs(self.args, self.kwargs).doubled(program)):
            if self.mode is None and self.compared:
                compare(self.model, program, batch.args, batch.kwargs)
            elif self.mode is not None:
                weight_files.check_shapes(self.mode, self.model, program, batch.args, batch.kwargs)


def _compare_copy(model: nn.Module, program: torch.export.ExportedProgram, check: tuple[nn.Module, Any],
                  dynamic_shapes: Any, unbatched: Collection[str]) -> str:
    """What was found out about the model by exporting a small one of its kind."""
    copy, inputs = check
    if type(copy) is not type(model):
        raise ExportError(f"the copy to check is a {type(copy).__name__}, the model is a {type(model).__name__}")
    if weight_files.left_out(copy, True):
        raise ExportError("the copy to check has parameters on the meta device, and so nothing to compare")
    args, kwargs = _arguments(copy, inputs, None)
    with _left_as_it_is(copy, args, kwargs):
        exporter = _Export(copy, args, kwargs, dynamic_shapes, unbatched)
        exported = exporter.training()
        exporter.evaluation(exported)
    more = sorted(_operators(program) - _operators(exported))
    return (f"outputs and gradients of a copy of {sum(p.numel() for p in copy.parameters()):,} parameters are the same"
            + (f"; it does not use {some(more)}" if more else ", and the operators are the same"))


def _operators(program: torch.export.ExportedProgram) -> set[str]:
    return {node._pretty_print_target(node.target) for node in program.graph.nodes if node.op == "call_function"}


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
    return _apart(args, {name: given[name] for name in signature.parameters if name in given} | given)


def _apart(args: tuple, kwargs: dict[str, Any]) -> tuple[tuple, dict[str, Any]]:
    """What is given twice (`labels=input_ids`) would be one input to torch.export, whatever its other name says."""
    seen: set[int] = set()

    def apart(tensor: torch.Tensor) -> torch.Tensor:
        if id(tensor) in seen:
            return tensor.clone()
        seen.add(id(tensor))
        return tensor

    return pytree.tree_map_only(torch.Tensor, apart, (args, kwargs))


# --- The batch ---

def _batch_shapes(model: nn.Module, args: tuple, kwargs: dict[str, Any],
                  unbatched: Collection[str]) -> dict[str, Any]:
    """Dimension 0 of each tensor is one and the same dynamic number, but of those without samples."""
    arguments = dict(inspect.signature(model.forward).bind(*args, **kwargs).arguments)
    _check_batch(arguments, unbatched)
    batch = torch.export.Dim("batch", min=1, max=MAX_BATCH)
    return pytree.tree_map_with_path(
        lambda path, leaf: {0: batch} if isinstance(leaf, torch.Tensor) and path_name(path) not in unbatched else None,
        arguments)


def _check_batch(arguments: dict[str, Any], unbatched: Collection[str]) -> None:
    sizes = {}
    names = [path_name(path) for path, leaf in pytree.tree_flatten_with_path(arguments)[0]
             if isinstance(leaf, torch.Tensor)]
    if unknown := set(unbatched) - set(names):
        raise ExportError(f"unbatched names {some(sorted(unknown))}, and the model's inputs are {', '.join(names)}")
    for path, leaf in pytree.tree_flatten_with_path(arguments)[0]:
        if not isinstance(leaf, torch.Tensor):
            continue
        name = path_name(path)
        if name in unbatched:
            continue
        if leaf.dim() == 0:
            raise ExportError(f"input '{name}' is a single number, and has no samples; name it in `unbatched`, or make "
                              "it a constant of the model")
        sizes[name] = leaf.shape[0]
    if not sizes:
        raise ExportError("no example input is a tensor" + (" that has samples" if unbatched else ""))
    if len(set(sizes.values())) > 1:
        raise ExportError(f"dimension 0 of the example inputs is not one batch: {sizes}; if it is not meant to be, name "
                          "inputs without samples in `unbatched`, or say which dimensions are with dynamic_shapes")
    if min(sizes.values()) < 2:
        raise ExportError("the example batch must have at least 2 samples: torch.export takes a size of 1 for a "
                          "constant, and the batch size would be baked in")


@dataclasses.dataclass
class _Inputs:
    args: tuple
    kwargs: dict[str, Any]

    def doubled(self, program: torch.export.ExportedProgram) -> _Inputs:
        """Another batch size: twice the samples, where dimension 0 may have as many."""
        leaves, spec = pytree.tree_flatten((self.args, self.kwargs))
        values = [node.meta.get("val") for node in inputs_of(program)]
        # A size that is also another dimension's, as a graph's nodes may be, is no batch.
        within = {str(size) for value in values if isinstance(value, torch.Tensor) for size in value.shape[1:]}
        doubled = [torch.cat([leaf, leaf.roll(1, 0)])
                   if _may_double(program, value) and str(value.shape[0]) not in within else leaf
                   for leaf, value in zip(leaves, values, strict=True)]
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
    except ExportError:
        raise
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
        if module is not None and not frame.f_code.co_filename.startswith((TORCH_FOLDER, OWN_FOLDER, "<")):
            line = _source_line(frame.f_code.co_filename, number)
    if module is None:
        return type(model).__name__
    return describe(names[id(module)], module) + (f" at {line}" if line else "")


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
        place = describe(name, model.get_submodule(name))
    except AttributeError:
        place = f"module '{name}'"
    line = _line_of(node.meta.get("stack_trace") or "")
    return f"{place} at {line}" if line else place


def _line_of(stack_trace: str) -> str:
    """The innermost line outside torch."""
    found = re.findall(r'File "(.*)", line (\d+), in .*\n\s*(.*)', stack_trace)
    places = [f"{file}:{line}: {text}" for file, line, text in found if not file.startswith(TORCH_FOLDER)]
    return places[-1] if places else ""


def _save(model: nn.Module, program: torch.export.ExportedProgram, evaluation: modes.Evaluation,
          path: pathlib.Path, elsewhere: set[str] = frozenset()) -> None:
    partial, alone = path.with_name(f"{path.stem}.part.pt2"), path.with_name(f"{path.stem}.part-evaluation.pt2")
    try:
        weight_files.save(model, program, partial, elsewhere)
        if evaluation.program is not None:
            weight_files.save(model, evaluation.program, alone, set(evaluation.program.state_dict))
        modes.add(partial, evaluation, alone)
        os.replace(partial, path)
    except (OSError, ExportError):
        raise
    except Exception as error:
        raise ExportError(f"torch.export cannot save {type(model).__name__}: {_first_line(error)}") from error
    finally:
        partial.unlink(missing_ok=True)
        alone.unlink(missing_ok=True)


# --- Leaving the model alone ---

@contextlib.contextmanager
def _left_as_it_is(model: nn.Module, args: tuple, kwargs: dict[str, Any], compared: bool = True) -> Iterator[None]:
    """Modes, values of parameters and buffers, random numbers, what the model takes and returns are afterwards what
    they were. Values change only where the model runs to be compared."""
    modes = {module: module.training for module in model.modules()}
    try:
        with (torch.random.fork_rng(_cuda_devices(model, args, kwargs)), values_kept(model, compared),
              in_plain_terms(model, kwargs), torch.enable_grad()):
            yield
    finally:
        for module, mode in modes.items():
            module.training = mode


def _cuda_devices(model: nn.Module, args: tuple, kwargs: dict[str, Any]) -> list[int]:
    tensors = [*model.parameters(), *model.buffers(), *pytree.tree_leaves((args, kwargs))]
    return sorted({t.device.index for t in tensors if isinstance(t, torch.Tensor) and t.device.type == "cuda"})
