"""What workers get of a model's Python: the program of gpipe.export, and where it is cut."""

from __future__ import annotations

import collections
import contextlib
import dataclasses
import pathlib
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import torch
import torch.utils._pytree as pytree
from torch import nn
from torch.export.graph_signature import ConstantArgument, InputKind

from gpipe._export.exporter import export
from gpipe._gpipe.arguments import Arguments, Input
from gpipe._gpipe.losses import Composition, Loss, LossLayer
from gpipe._gpipe.partitions import check_input

# A batch size that no other dimension is likely to have, so that it is a free one; its samples are of the mini-batch.
SAMPLES = 4
FILE = "model.pt2"
LOSS = "gpipe_loss"  # The module's name in a program.


@dataclasses.dataclass(frozen=True)
class Program:
    """An exported model, in a file of a folder."""

    inputs: tuple[str, ...]
    split: tuple[str, ...]  # Modules with which stages begin, but for the first stage.
    differentiable: frozenset[str]  # Parameters that a backward pass gives a gradient.
    returns_tuple: bool
    outputs: int  # In evaluation. A program with a loss may return more, which is nothing.
    composition: Composition | None  # Of the loss, which comes back in training.
    is_checked: bool  # Whether there was more than one sample to try the loss on, if there is one.

    def output_of(self, returned: Sequence[torch.Tensor]) -> Input:
        """The model's."""
        return tuple(returned[:self.outputs]) if self.returns_tuple else returned[0]


class Entrance(nn.Module):
    """In front of a partition that writes to its input, as torchgpipe's are given a copy."""

    def forward(self, input: Input) -> Input:
        return tuple(tensor.clone() for tensor in input) if isinstance(input, tuple) else input.clone()


class WithLoss(nn.Module):
    """The model, and behind it its loss, whose place the model's outputs have in evaluation: outputs of a program have
    the same names in both."""

    def __init__(self, children: Mapping[str, nn.Module], loss: Loss, outputs: int):
        super().__init__()
        for name, child in children.items():
            self.add_module(name, child)
        self.add_module(LOSS, LossLayer(loss))
        self._outputs = outputs

    def forward(self, input: Any, target: Any) -> tuple[torch.Tensor, ...]:
        """As many tensors as outputs, at least."""
        value, samples = input, pytree.tree_leaves(target)[0].shape[0]
        *children, loss = self.children()
        for child in children:
            value = child(value)
        returned = loss(value, target) if self.training else pytree.tree_leaves(value)
        nothing = [torch.zeros(samples, dtype=torch.uint8) for _ in range(self._outputs - len(returned))]
        return (*returned, *nothing)


def export_program(partitions: nn.ModuleList, arguments: Arguments, in_training: bool, folder: pathlib.Path,
                   loss: Loss | None = None) -> Program | None:
    """As the modules are, or as all of them are in training; with the loss, if there is a target. None: it computes
    nothing that is worth a worker, without parameters or random numbers. TypeError where what it returns is no tensor,
    nor a tuple of tensors; ValueError for a loss that workers cannot compute; ExportError."""
    sample = arguments.map(_sample)
    output, writes = _look(partitions, sample.input)
    groups = [_children(partition, i if i in writes else None) for i, partition in enumerate(partitions)]
    children = collections.OrderedDict(child for group in groups for child in group)
    composition = None if loss is None or sample.target is None else loss.check(output, sample.target)
    outputs = len(pytree.tree_leaves(output))
    whole = _whole(children, loss, composition, outputs)
    whole.training = in_training  # All by itself, which says what is to be done about the others.
    exported = export(whole, tuple(sample), folder / FILE)
    computing = [name for name in _computing_modules(exported) if name != LOSS]
    if not computing:
        return None
    split = _split([[name for name, _ in group] for group in groups], computing)
    returns_tuple = _returns_tuple(exported) if composition is None else isinstance(output, tuple)
    is_checked = composition is None or arguments.tensors[0].shape[0] > 1
    return Program(tuple(exported.graph_signature.user_inputs), split, _differentiable(exported, whole), returns_tuple,
                   outputs, composition, is_checked)


def _whole(children: collections.OrderedDict[str, nn.Module], loss: Loss | None, composition: Composition | None,
           outputs: int) -> nn.Module:
    if loss is None or composition is None:
        return nn.Sequential(children)
    return WithLoss(children, loss, max(outputs, len(composition.kinds)))


def _sample(tensor: torch.Tensor) -> torch.Tensor:
    """Some of its samples, as often as there are too few."""
    tensor = tensor.detach().cpu()
    return tensor[torch.arange(SAMPLES) % tensor.shape[0]]


def _children(partition: nn.Module, entered: int | None) -> list[tuple[str, nn.Module]]:
    children: list[tuple[str, nn.Module]] = list(partition.named_children())
    return children if entered is None else [(f"gpipe_entrance_{entered}", Entrance()), *children]


def _look(partitions: nn.ModuleList, input: Input) -> tuple[Input, set[int]]:
    """What comes of some samples, and which partitions change what they get. It leaves no trace."""
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
    return value, found


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
