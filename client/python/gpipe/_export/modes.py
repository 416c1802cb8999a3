"""What a model is in evaluation, for gpipe.export.

Workers have a model's training program, and for evaluation turn off in it the operators that have an argument for
that (worker/exported/operator_call.cc). Where that is not what the model does in eval(), its evaluation program goes
into the archive, too, as `evaluation`: torch.export.pt2_archive.load_pt2() gives both. The weights are there once.
"""

from __future__ import annotations

import dataclasses
import json
import pathlib
import zipfile
from typing import Any

import torch
from torch.export.graph_signature import InputKind

# Arguments that say that the model is trained, and what workers give instead in evaluation.
TRAINING_ARGUMENTS = {
    "aten::batch_norm": ("training", False), "aten::instance_norm": ("use_input_stats", False),
    "aten::native_dropout": ("train", False), "aten::lstm": ("train", False), "aten::gru": ("train", False),
    "aten::rnn_tanh": ("train", False), "aten::rnn_relu": ("train", False), "aten::rrelu": ("training", False),
    "aten::rrelu_": ("training", False), "aten::scaled_dot_product_attention": ("dropout_p", 0.0),
}
# Turned off, they return their input.
DROPOUTS = {f"aten::{kind}dropout{end}" for kind in ("", "feature_", "alpha_", "feature_alpha_") for end in ("", "_")}
CHECKS = ("aten::_assert", "aten::sym_constrain_range")  # Without them a program does the same.

MODEL, EVALUATION = "model", "evaluation"  # The programs' names in an archive.
NOTE = "extra/gpipe_evaluation"  # worker/exported/archive.cc
SAME = "same"


@dataclasses.dataclass
class Evaluation:
    """Either a program of its own, or why there is none; neither if the training program is right for it."""

    program: torch.export.ExportedProgram | None = None
    missing: str = ""


# --- Whether a program is the other one, turned off ---

def is_turned_off(evaluation: torch.export.ExportedProgram, training: torch.export.ExportedProgram) -> bool:
    """Whether `evaluation` is what workers make of the other one. Nothing runs."""
    return _Form(evaluation, False).whole() == _Form(training, True).whole()


class _Form:
    """A program as nested tuples, without names, checks, and what nothing uses."""

    def __init__(self, program: torch.export.ExportedProgram, turns_off: bool):
        self._program, self._turns_off = program, turns_off
        self._writes = any(_writes(node) for module in program.graph_module.modules()
                           for node in getattr(module, "graph", torch.fx.Graph()).nodes)
        specs = program.graph_signature.input_specs
        self._inputs = {spec.arg.name: spec for spec in specs}
        self._own = [spec.arg.name for spec in specs if spec.kind == InputKind.USER_INPUT]

    def whole(self) -> tuple:
        spec = self._program.call_spec
        return (self._graph(self._program.graph_module, self._input), str(spec.in_spec), str(spec.out_spec))

    def _input(self, node: torch.fx.Node, _: int) -> Any:
        spec = self._inputs[node.name]
        if spec.kind == InputKind.USER_INPUT:
            return "input", self._own.index(node.name)
        if spec.kind == InputKind.CONSTANT_TENSOR:
            tensor = self._program.constants[spec.target]
            return "constant", str(tensor.dtype), tuple(tensor.shape), _bytes(tensor)
        return str(spec.kind), spec.target

    def _graph(self, module: torch.fx.GraphModule, name_input: Any) -> tuple:
        values: dict[torch.fx.Node, Any] = {}
        calls: list[tuple[torch.fx.Node, tuple]] = []
        position, outputs = 0, None
        for node in module.graph.nodes:
            if node.op == "placeholder":
                values[node] = name_input(node, position)
                position += 1
            elif node.op == "get_attr":
                values[node] = self._graph(getattr(module, node.target), lambda _, i: ("input", i))
            elif node.op == "output":
                outputs = node.args[0]
            elif (source := self._passes_on(node)) is not None:
                values[node] = values[source]
            elif not _is_check(node):
                values[node] = node
                calls.append((node, self._call(node)))
        return _numbered(calls, outputs, values)

    def _passes_on(self, node: torch.fx.Node) -> torch.fx.Node | None:
        """What it returns as it is: a dropout that is off, the count of a batch norm's training batches."""
        if not isinstance(node.target, torch._ops.OpOverload):
            return None
        name = node.target._schema.name
        if name in DROPOUTS and (self._turns_off or not _arguments(node)["train"]):
            return node.args[0]
        # Whether it is there depends on the kernel that attention has, and so on its dropout.
        if name == "aten::contiguous" and not self._writes:
            return node.args[0]
        return node.args[0] if self._turns_off and _counts_batches(node) else None

    def _call(self, node: torch.fx.Node) -> tuple:
        if not isinstance(node.target, torch._ops.OpOverload):
            return str(node.target), node.args, tuple(sorted(node.kwargs.items()))
        arguments = _arguments(node)
        name, off = TRAINING_ARGUMENTS.get(node.target._schema.name, (None, None))
        # Without running statistics a norm has those of its input, always.
        if name in arguments and self._turns_off and arguments.get("running_mean", node) is not None:
            arguments[name] = off
        return str(node.target), tuple(arguments.items()), ()


def _counts_batches(node: torch.fx.Node) -> bool:
    return node.target._schema.name == "aten::add_" and str(node.args[0]).endswith("num_batches_tracked")


def _writes(node: torch.fx.Node) -> bool:
    return (isinstance(node.target, torch._ops.OpOverload) and node.target._schema.is_mutable
            and not _counts_batches(node))


def _bytes(tensor: torch.Tensor) -> bytes:
    plain = tensor.detach().cpu().contiguous().clone()
    return bytes(plain.untyped_storage())


def _arguments(node: torch.fx.Node) -> dict[str, Any]:
    """All of an operator's, also those that have their default."""
    named = {argument.name: argument.default_value for argument in node.target._schema.arguments}
    return named | dict(zip(named, node.args)) | node.kwargs


def _is_check(node: torch.fx.Node) -> bool:
    return isinstance(node.target, torch._ops.OpOverload) and node.target._schema.name.startswith(CHECKS)


def _is_used_anyway(node: torch.fx.Node) -> bool:
    """Because it writes to something, or may."""
    return _writes(node) or isinstance(node.target, torch._ops.HigherOrderOperator)


def _numbered(calls: list[tuple[torch.fx.Node, tuple]], outputs: Any, values: dict[torch.fx.Node, Any]) -> tuple:
    """The calls that something comes of, with numbers for what they make."""
    used: set[torch.fx.Node] = set()
    _use(outputs, values, used)
    for node, call in reversed(calls):
        if node in used or _is_used_anyway(node):
            used.add(node)
            _use(call, values, used)
    live = [(node, call) for node, call in calls if node in used]
    numbers = {node: number for number, (node, _) in enumerate(live)}

    def plain(value: Any) -> Any:
        if isinstance(value, torch.fx.Node):
            meant = values[value]
            return ("made", numbers[meant]) if isinstance(meant, torch.fx.Node) else ("is", meant)
        if isinstance(value, (tuple, list)):
            return tuple(plain(element) for element in value)
        return value if isinstance(value, (bool, int, float, complex, str, type(None))) else str(value)

    return tuple(plain(call) for _, call in live), plain(outputs)


def _use(argument: Any, values: dict[torch.fx.Node, Any], used: set[torch.fx.Node]) -> None:
    if isinstance(argument, torch.fx.Node):
        if isinstance(values[argument], torch.fx.Node):
            used.add(values[argument])
    elif isinstance(argument, (tuple, list)):
        for element in argument:
            _use(element, values, used)


# --- The archive ---

def add(path: pathlib.Path, evaluation: Evaluation, alone: pathlib.Path) -> None:
    """Puts into the archive at `path` what its model is in evaluation. A program of its own is in an archive `alone`,
    without weights."""
    with zipfile.ZipFile(path, "a") as archive:
        records = _Records(archive)
        if evaluation.program is None:
            records.write(NOTE, evaluation.missing or SAME)
            return
        with zipfile.ZipFile(alone) as source:
            _copy_program(_Records(source), records)


class _Records:
    """The records of an archive, whose names begin with that of its folder."""

    def __init__(self, file: zipfile.ZipFile):
        self.file, self.root = file, file.namelist()[0].partition("/")[0]

    def read(self, name: str) -> bytes:
        return self.file.read(f"{self.root}/{name}")

    def write(self, name: str, data: bytes | str) -> None:
        self.file.writestr(f"{self.root}/{name}", data)

    def has(self, name: str) -> bool:
        return f"{self.root}/{name}" in self.file.namelist()


def _copy_program(source: _Records, target: _Records) -> None:
    constants = _copy_constants(source, target)
    target.write(f"data/constants/{EVALUATION}_constants_config.json", json.dumps({"config": constants}))
    weights = target.read(f"data/weights/{MODEL}_weights_config.json")
    target.write(f"data/weights/{EVALUATION}_weights_config.json", weights)
    target.write(f"data/sample_inputs/{EVALUATION}.pt", source.read(f"data/sample_inputs/{MODEL}.pt"))
    target.write(f"models/{EVALUATION}.json", source.read(f"models/{MODEL}.json"))


def _copy_constants(source: _Records, target: _Records) -> dict[str, Any]:
    """Those that the target has under the same name stay where they are."""
    table = f"data/constants/{MODEL}_constants_config.json"
    there = json.loads(target.read(table))["config"]
    entries, places = json.loads(source.read(table))["config"], {}
    for name, entry in entries.items():
        record, known = entry["path_name"], there.get(name)
        if record not in places:
            data = source.read(f"data/constants/{record}")
            same = known is not None and known["tensor_meta"] == entry["tensor_meta"] and (
                target.read(f"data/constants/{known['path_name']}") == data)
            places[record] = known["path_name"] if same else _add_constant(target, data)
        entry["path_name"] = places[record]
    return entries


def _add_constant(target: _Records, data: bytes) -> str:
    number = 0
    while target.has(f"data/constants/tensor_{number}"):
        number += 1
    target.write(f"data/constants/tensor_{number}", data)
    return f"tensor_{number}"
