"""What workers get of a model's Python: the program of gpipe.export, and where it is cut."""

from __future__ import annotations

import collections
import contextlib
import dataclasses
import pathlib
from collections.abc import Iterator, Sequence
from typing import Any

import torch
from torch import nn
from torch.export.graph_signature import ConstantArgument, InputKind

from gpipe._export.exporter import export
from gpipe._gpipe.partitions import check_input

# A batch size that no other dimension is likely to have, so that it is a free one; its samples are of the mini-batch.
SAMPLES = 4
FILE = "model.pt2"

Input = torch.Tensor | tuple[torch.Tensor, ...]


@dataclasses.dataclass(frozen=True)
class Program:
    """An exported model, in a file of a folder."""

    inputs: tuple[str, ...]
    split: tuple[str, ...]  # Modules with which stages begin, but for the first stage.
    differentiable: frozenset[str]  # Parameters that a backward pass gives a gradient.
    returns_tuple: bool


class Entrance(nn.Module):
    """In front of a partition that writes to its input, as torchgpipe's are given a copy."""

    def forward(self, input: Input) -> Input:
        return tuple(tensor.clone() for tensor in input) if isinstance(input, tuple) else input.clone()


def export_program(partitions: nn.ModuleList, input: Input, in_training: bool, folder: pathlib.Path) -> Program | None:
    """As the modules are, or as all of them are in training. None: it computes nothing that is worth a worker, without
    parameters or random numbers. TypeError where what it returns is no tensor, nor a tuple of tensors; ExportError."""
    sample = _sample(input)
    writes = _partitions_that_write(partitions, sample)
    children = [_children(partition, i if i in writes else None) for i, partition in enumerate(partitions)]
    whole = nn.Sequential(collections.OrderedDict(child for group in children for child in group))
    whole.training = in_training  # All by itself, which says what is to be done about the others.
    exported = export(whole, (sample,), folder / FILE)
    computing = _computing_modules(exported)
    if not computing:
        return None
    split = _split([[name for name, _ in group] for group in children], computing)
    return Program(tuple(exported.graph_signature.user_inputs), split, _differentiable(exported, whole),
                   _returns_tuple(exported))


def _sample(input: Input) -> Input:
    """Some of its samples, as often as there are too few."""
    if isinstance(input, tuple):
        return tuple(_sample(tensor) for tensor in input)  # type: ignore[misc]
    tensor = input.detach().cpu()
    return tensor[torch.arange(SAMPLES) % tensor.shape[0]]


def _children(partition: nn.Module, entered: int | None) -> list[tuple[str, nn.Module]]:
    children: list[tuple[str, nn.Module]] = list(partition.named_children())
    return children if entered is None else [(f"gpipe_entrance_{entered}", Entrance()), *children]


def _partitions_that_write(partitions: nn.ModuleList, input: Input) -> set[int]:
    """Those that change what they get. One look at some samples tells; it leaves no trace."""
    found = set()
    value: Any = tuple(tensor.clone() for tensor in input) if isinstance(input, tuple) else input.clone()
    with torch.no_grad(), torch.random.fork_rng([]), _buffers_kept(partitions):
        for i, partition in enumerate(partitions):
            tensors = value if isinstance(value, tuple) else (value,)
            before = [tensor._version for tensor in tensors]
            value = partition(value)
            check_input(value)
            if [tensor._version for tensor in tensors] != before:
                found.add(i)
    return found


@contextlib.contextmanager
def _buffers_kept(module: nn.Module) -> Iterator[None]:
    values = {buffer: buffer.clone() for buffer in module.buffers()}
    try:
        yield
    finally:
        for buffer, value in values.items():
            buffer.copy_(value)


def _computing_modules(program: torch.export.ExportedProgram) -> list[str]:
    """Children of the model, in the order in which each first does something that is done in one place. What depends on
    inputs and constants only, and not on chance, every stage does for itself (worker/exported/units.h)."""
    signature = program.graph_signature
    parameters = {spec.arg.name for spec in signature.input_specs if spec.kind == InputKind.PARAMETER}
    common: set[torch.fx.Node] = set()
    found: dict[str, None] = {}
    for node in program.graph.nodes:
        if node.op == "placeholder":
            common |= set() if node.name in parameters else {node}
        elif node.op == "call_function":
            if common.issuperset(node.all_input_nodes) and _is_pure(node):
                common.add(node)
            else:
                found |= dict.fromkeys(_child_of(node))
    return list(found)


def _is_pure(node: torch.fx.Node) -> bool:
    if not isinstance(node.target, torch._ops.OpOverload):
        return not isinstance(node.target, torch._ops.HigherOrderOperator)
    return torch.Tag.nondeterministic_seeded not in node.target.tags and not node.target._schema.is_mutable


def _child_of(node: torch.fx.Node) -> Iterator[str]:
    for path, _ in (node.meta.get("nn_module_stack") or {}).values():
        if path:
            yield path.removeprefix("L['self'].").partition(".")[0]
            return


def _split(groups: Sequence[Sequence[str]], computing: Sequence[str]) -> tuple[str, ...]:
    """Partitions that compute nothing by themselves are part of the stage before them, or behind where it is the
    first."""
    firsts = [min((name for name in group if name in computing), key=computing.index, default=None)
              for group in groups]
    return tuple([first for first in firsts if first is not None][1:])


def _differentiable(program: torch.export.ExportedProgram, module: nn.Module) -> frozenset[str]:
    """By the first of their names, as tied ones have several, of which the program uses any."""
    used = {node.name for node in program.graph.nodes if node.op == "placeholder" and node.users}
    targets = {str(spec.target) for spec in program.graph_signature.input_specs if spec.arg.name in used}
    ids = {id(parameter) for name, parameter in module.named_parameters(remove_duplicate=False) if name in targets}
    return frozenset(name for name, parameter in module.named_parameters()
                     if parameter.requires_grad and id(parameter) in ids)


def _returns_tuple(program: torch.export.ExportedProgram) -> bool:
    for output in program.graph_signature.output_specs:
        if isinstance(output.arg, ConstantArgument):
            check_input(output.arg.value)
    return program.call_spec.out_spec is not None and not program.call_spec.out_spec.is_leaf()
